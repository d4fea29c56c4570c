"""A dataset from what lies below a cut: the same from segments as from a replay of the log."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from everloop_schemas.pipeline import Pipeline
from numpy.typing import NDArray

from everloop_trainer.application.training import microseconds
from everloop_trainer.domain.dataset import Dataset, FeatureType, Identity, Vectors, assemble
from everloop_trainer.domain.job import Job
from everloop_trainer.domain.records import Records, fields_beside, labels_of, retractions_among
from everloop_trainer.domain.seen import seen_rows

__all__ = ["Evaluator", "Snapshot", "snapshot"]


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


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A dataset; `seen` [n] marks the rows that the champion has trained on, where the job names its cut."""

    dataset: Dataset
    seen: NDArray[np.bool_] | None


def snapshot(
    *,
    job: Job,
    pipeline: Pipeline,
    evaluator: Evaluator,
    observations: Records,
    labels: Records,
    vectors: Vectors,
) -> Snapshot:
    """The labelled rows of the job's cut and window; retractions stand among the labels."""
    retractions, told = retractions_among(labels)
    valued = labels_of(told, evaluator.label_value, _read)
    beside = fields_beside(vectors, observations, _sliced_fields(pipeline, evaluator), _read)
    dataset = assemble(
        Identity(job.pipeline, job.pipeline_version, job.pipeline_sha256),
        replace(vectors, beside=beside),
        valued,
        job.cut,
        microseconds(job.pipeline_time - pipeline.training.rows.window),
        retractions=retractions,
    )
    cut = None if job.champion is None else job.champion.cut
    return Snapshot(dataset, None if cut is None else seen_rows(dataset, vectors, valued, cut))


def _sliced_fields(pipeline: Pipeline, evaluator: Evaluator) -> list[str]:
    """Category fields that are no features: gates may ask about their values too."""
    features = set(evaluator.names)
    fields = pipeline.observation.fields.items()
    return [name for name, spec in fields if spec.type == "category" and name not in features]


def _read(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text)
    return fields
