"""A dataset from what lies below a cut: the same from segments as from a replay of the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from everloop_schemas.pipeline import Pipeline

from everloop_trainer.application.training import microseconds
from everloop_trainer.domain.dataset import Dataset, FeatureType, Identity, Vectors, assemble
from everloop_trainer.domain.job import Job
from everloop_trainer.domain.records import Records, fields_beside, labels_of, retractions_among

__all__ = ["Evaluator", "snapshot"]


class Evaluator(Protocol):
    """What the feature language says about one pipeline version."""

    @property
    def names(self) -> Sequence[str]:
        """The features, in order."""
        ...

    @property
    def types(self) -> Sequence[FeatureType]:
        """Their types."""
        ...

    def label_value(self, fields: Mapping[str, Any]) -> float | None:
        """What a label's fields say."""
        ...


def snapshot(
    *,
    job: Job,
    pipeline: Pipeline,
    evaluator: Evaluator,
    observations: Records,
    labels: Records,
    vectors: Vectors,
) -> Dataset:
    """The labelled rows of the job's cut and window; retractions stand among the labels."""
    retractions, labels = retractions_among(labels)
    beside = fields_beside(vectors, observations, _sliced_fields(pipeline, evaluator), _read)
    return assemble(
        Identity(job.pipeline, job.pipeline_version, job.pipeline_sha256),
        replace(vectors, beside=beside),
        labels_of(labels, evaluator.label_value, _read),
        job.cut,
        microseconds(job.pipeline_time - pipeline.training.rows.window),
        retractions=retractions,
    )


def _sliced_fields(pipeline: Pipeline, evaluator: Evaluator) -> list[str]:
    """Category fields that are no features: gates may ask about their values too."""
    features = set(evaluator.names)
    fields = pipeline.observation.fields.items()
    return [name for name, spec in fields if spec.type == "category" and name not in features]


def _read(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text)
    return fields
