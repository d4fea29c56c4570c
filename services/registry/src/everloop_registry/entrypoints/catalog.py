"""The catalog's JSON: one pipeline's data, its readers, its versions."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from everloop_schemas.events import DataProfiled

from everloop_registry.domain.catalog import catalog_features, catalog_fields, changes, topics_of
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.models import Model, stage_of
from everloop_registry.domain.pipelines import PipelineVersion
from everloop_registry.domain.profiles import figures
from everloop_registry.entrypoints.views import View, pipeline_view

__all__ = ["catalog_view", "changes_view"]


def catalog_view(
    versions: Sequence[PipelineVersion],
    models: Sequence[Model],
    deployment: Deployment,
    profiles: Sequence[DataProfiled] = (),
) -> View:
    """The newest version's data; `versions` are the newest first and at least one, each with its changes.

    `profiles` are those of the last trainings, the newest first.
    """
    current = versions[0]
    definition = current.definition
    return {
        **pipeline_view(current, whole=False),
        "team": definition.get("team") or None,
        "description": definition.get("description") or None,
        "partition_by": definition.get("partition_by"),
        "event_time": definition.get("observation", {}).get("event_time"),
        "label": _label(definition.get("label", {})),
        "fields": catalog_fields(definition),
        "features": [asdict(use) for use in catalog_features(definition)],
        "models": [_model(model, deployment) for model in models],
        "topics": topics_of(current.pipeline),
        "profiles": [_profile(profile, models) for profile in profiles],
        "versions": [*_with_changes(versions), {**pipeline_view(versions[-1], whole=False), "changes": []}],
    }


def changes_view(before: PipelineVersion, after: PipelineVersion) -> View:
    """What differs between two versions of a pipeline."""
    return {
        "pipeline": after.pipeline,
        "before": before.version,
        "after": after.version,
        "changes": [asdict(change) for change in changes(before.definition, after.definition)],
    }


def _with_changes(versions: Sequence[PipelineVersion]) -> list[View]:
    return [
        {**pipeline_view(after, whole=False), "changes": changes_view(before, after)["changes"]}
        for after, before in pairwise(versions)
    ]


def _profile(profiled: DataProfiled, models: Sequence[Model]) -> View:
    trained = {model.trained.run_id: model.version for model in models}
    return {"model_version": trained.get(profiled.run_id), **figures(profiled)}


def _label(label: dict[str, Any]) -> View:
    name, expression = next(iter((label.get("value") or {}).items()), (None, None))
    return {"name": name, "type": label.get("type"), "expression": expression}


def _model(model: Model, deployment: Deployment) -> View:
    return {
        "model_version": model.version,
        "pipeline_version": model.trained.pipeline_version,
        "stage": stage_of(model, deployment),
    }
