"""The JSON that people and programs read: one function a page."""

from collections.abc import Sequence
from typing import Any

from everloop_schemas.events import ModelLoaded

from everloop_registry.domain.audit import AuditEntry, first_broken
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.models import Model, stage_of
from everloop_registry.domain.pipelines import PipelineVersion

__all__ = ["deployment_view", "history_view", "lineage_view", "model_view", "pipeline_view"]

View = dict[str, Any]
"""A JSON object."""


def pipeline_view(version: PipelineVersion, *, whole: bool = True) -> View:
    """A pipeline version; without `whole`, the definition is left out."""
    definition = {"definition": version.definition} if whole else {}
    return {
        "pipeline": version.pipeline,
        "version": version.version,
        "sha256": version.sha256,
        "partitions": version.partitions,
        "defined_at": version.defined_at,
        "defined_by": version.defined_by,
        **definition,
    }


def model_view(model: Model, deployment: Deployment) -> View:
    """A model version in a list: where it stands and how its gates went."""
    return {
        "pipeline": model.pipeline,
        "model_version": model.version,
        "pipeline_version": model.trained.pipeline_version,
        "stage": stage_of(model, deployment),
        "pinned": deployment.holds_pin(model.version),
        "run_id": model.trained.run_id,
        "trigger": model.trained.trigger.kind,
        "trained_at": model.trained.trained_at,
        "metrics": {metric.name: metric.candidate for metric in model.trained.metrics},
        "gates": [gate.model_dump(mode="json") for gate in model.gates],
        "decision": _decision(model),
    }


def lineage_view(
    model: Model,
    deployment: Deployment,
    pipeline: PipelineVersion | None,
    audit: Sequence[AuditEntry],
    loads: Sequence[ModelLoaded],
) -> View:
    """Everything known about a version: from the event that caused its run to the instances that hold it."""
    trained = model.trained.model_dump(mode="json")
    decisions = [_audit_view(entry) for entry in audit if entry.deed.model_version == model.version]
    return {
        **trained,
        "pipeline_sha256": pipeline.sha256 if pipeline else None,
        "stage": stage_of(model, deployment),
        "pinned": deployment.holds_pin(model.version),
        "gates": [gate.model_dump(mode="json") for gate in model.gates],
        "decision": _decision(model),
        "decisions": decisions,
        "loads": [load.model_dump(mode="json") for load in loads if load.model_version == model.version],
    }


def deployment_view(deployment: Deployment, loads: Sequence[ModelLoaded]) -> View:
    """What should run, and what each serving instance last said it holds."""
    newest: dict[str, ModelLoaded] = {}
    for load in loads:
        newest.setdefault(load.instance, load)
    return {
        "pipeline": deployment.pipeline,
        "revision": deployment.revision,
        "champion": _version(deployment.champion),
        "challenger": _version(deployment.challenger),
        "challenger_share": deployment.challenger_share,
        "previous": _version(deployment.previous),
        "rolled_back": deployment.rolled_back,
        "pinned": [_version(ref) for ref in deployment.pinned],
        "instances": [load.model_dump(mode="json") for load in newest.values()],
    }


def history_view(entries: Sequence[AuditEntry]) -> View:
    """The audit trail, the newest entry first, and whether the chain is as it was written."""
    broken = first_broken(entries)
    return {
        "intact": broken is None,
        "first_broken": broken,
        "entries": [_audit_view(entry) for entry in reversed(entries)],
    }


def _decision(model: Model) -> View:
    return {
        "state": model.state,
        "by": model.decision.by,
        "at": model.decision.at,
        "reason": model.decision.reason,
    }


def _audit_view(entry: AuditEntry) -> View:
    return {
        "sequence": entry.sequence,
        "at": entry.at,
        "actor": entry.deed.actor,
        "action": entry.deed.action,
        "model_version": entry.deed.model_version,
        "details": entry.deed.details,
        "previous_sha256": entry.previous_sha256,
        "sha256": entry.sha256,
    }


def _version(ref: Any) -> View | None:
    return None if ref is None else ref.model_dump(mode="json")
