"""A trained model with what its loader needs to know, and to try, as one artifact."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from everloop_schemas.events import Value

from everloop_trainer.application.contenders import Fitted, Learner
from everloop_trainer.domain import artifact
from everloop_trainer.domain.dataset import Column, Dataset
from everloop_trainer.domain.job import Job
from everloop_trainer.domain.matrix import Categories
from everloop_trainer.domain.metrics import Task

__all__ = ["packed"]


def packed(
    *, job: Job, task: Task, learner: Learner, published: Fitted, dataset: Dataset, sha256: str
) -> bytes:
    """The artifact's bytes; golden rows are spread over the dataset, whose digest is `sha256`."""
    rows = dataset.take(np.array(artifact.golden_rows(dataset.rows), dtype=np.int64))
    outputs = published.predict(rows).tolist()
    manifest = {
        "format": artifact.FORMAT,
        "pipeline": job.pipeline,
        "pipeline_version": job.pipeline_version,
        "pipeline_sha256": job.pipeline_sha256,
        "definition": job.definition,  # serving reads it here: it must go on without Kafka
        "task": task,
        "features": [_feature(column, published.categories) for column in dataset.columns],
        "objective": learner.objective,
        "lightgbm": learner.libraries["lightgbm"],
        "dataset": sha256,
        "run_id": job.run_id,
        "golden": artifact.golden(_json_rows(rows), outputs),
    }
    return artifact.pack(manifest, published.model.text())


def _feature(column: Column, categories: Categories) -> dict[str, Any]:
    feature: dict[str, Any] = {"name": column.name, "type": column.type}
    if column.type == "category":
        feature["categories"] = categories[column.name]
    return feature


def _json_rows(dataset: Dataset) -> list[list[Value]]:
    columns = [_json_values(column) for column in dataset.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _json_values(column: Column) -> Sequence[Value]:
    if isinstance(column.values, list):
        return column.values
    plain: list[float] = column.values.tolist()
    cast = bool if column.type == "boolean" else float
    return [None if np.isnan(value) else cast(value) for value in plain]
