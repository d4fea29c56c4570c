"""Train one model from one dataset: judge a model of the older rows on the newer ones, then fit what is published."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import numpy as np
from everloop_schemas.events import DatasetRef, MetricEvidence, Value
from everloop_schemas.pipeline import Pipeline
from numpy.typing import NDArray

from everloop_trainer.domain import artifact
from everloop_trainer.domain.bootstrap import blocks
from everloop_trainer.domain.dataset import Column, Dataset
from everloop_trainer.domain.digest import dataset_sha256
from everloop_trainer.domain.evaluation import Contest, evaluate
from everloop_trainer.domain.job import Job, Trained, UntrainableError
from everloop_trainer.domain.matrix import Categories, categories_of, encode
from everloop_trainer.domain.metrics import Task
from everloop_trainer.domain.parameters import Parameters, seed_of
from everloop_trainer.domain.split import Split, split

__all__ = ["Learner", "Model", "Stopwatch", "train"]

Floats = NDArray[np.float64]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Model(Protocol):
    """A fitted model."""

    def predict(self, matrix: Floats) -> Floats:
        """Outputs [rows]: a probability or a number."""
        ...

    def text(self) -> str:
        """The model as it is published."""
        ...


class Learner(Protocol):
    """What fits models, with the same result for the same arguments."""

    objective: str
    libraries: Mapping[str, str]

    def fit(
        self, matrix: Floats, target: Floats, columns: Sequence[Column], parameters: Parameters, seed: int
    ) -> Model:
        """Fit one model on rows [n, features]."""
        ...


@dataclass(slots=True)
class Stopwatch:
    """Seconds by step, by a clock that only the report sees."""

    now: Any
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block."""
        begin = self.now()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + self.now() - begin, 3)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model with the categories it knows."""

    model: Model
    categories: Categories

    def predict(self, dataset: Dataset) -> Floats:
        """Outputs for a dataset's rows."""
        return self.model.predict(encode(dataset.columns, self.categories))


@dataclass(frozen=True, slots=True)
class Training:
    """One training's inputs; `champion` gives the champion's outputs for a dataset, where there is one to compare."""

    job: Job
    pipeline: Pipeline
    dataset: Dataset
    learner: Learner
    champion: Fitted | None
    watch: Stopwatch

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.pipeline.label.type

    @property
    def seed(self) -> int:
        """From the run's id."""
        return seed_of(self.job.run_id)

    def parameters(self) -> Parameters:
        """The pipeline's, with the run's overrides."""
        model = self.pipeline.training.model
        declared = Parameters(model.trees, model.leaves, model.learning_rate, model.min_data_in_leaf)
        return declared.overridden(self.job.overrides)


def train(training: Training) -> tuple[Trained, bytes]:
    """The result and the artifact's bytes. Raises UntrainableError."""
    _check_rows(training)
    parts = _split(training)
    with training.watch.step("fit_for_evaluation"):
        judged = _fit(training, training.dataset.take(parts.train))
    with training.watch.step("evaluate"):
        metrics, block = _judge(training, judged, parts)
    published = judged
    if training.pipeline.training.refit:
        with training.watch.step("refit"):
            published = _fit(training, training.dataset)
    with training.watch.step("pack"):
        sha256 = dataset_sha256(training.dataset)
        data = _pack(training, published, sha256)
    return _trained(training, parts, metrics, block, sha256, data), data


def microseconds(time: datetime) -> int:
    """Since 1970, UTC."""
    return (time - _EPOCH) // _MICROSECOND


def _moment(microseconds_: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds_))


def _check_rows(training: Training) -> None:
    rows, needed = training.dataset.rows, training.pipeline.training.minimum_rows
    if rows < needed:
        raise UntrainableError(
            f"{rows} labelled rows lie below the cut and within training.rows.window; {needed} are needed",
            "Send more labels, widen training.rows.window or lower training.minimum_rows",
        )
    _check_classes(training, training.dataset.target)


def _check_classes(training: Training, target: Floats) -> None:
    if training.task == "binary" and len(np.unique(target)) < 2:  # noqa: PLR2004 - two classes
        raise UntrainableError(
            f"all {len(target)} training rows have the label {target[0]:g}"
            if len(target)
            else "no training rows",
            "Check label.value, or wait until both outcomes have been seen",
        )


def _split(training: Training) -> Split:
    champion = training.job.champion
    saw = None if champion is None else microseconds(champion.last_event_time)
    settings = training.pipeline.training
    parts = split(training.dataset, settings.test_share, saw, settings.minimum_rows)
    if len(parts.train) == 0:
        raise UntrainableError(
            "no row's label was known before the test period begins",
            "Lower training.test_share, or send labels with the event_time at which they became known",
        )
    _check_classes(training, training.dataset.target[parts.train])
    return parts


def _fit(training: Training, dataset: Dataset) -> Fitted:
    categories = categories_of(dataset.columns)
    matrix = encode(dataset.columns, categories)
    parameters = training.parameters()
    model = training.learner.fit(matrix, dataset.target, dataset.columns, parameters, training.seed)
    return Fitted(model, categories)


def _judge(training: Training, judged: Fitted, parts: Split) -> tuple[list[MetricEvidence], str]:
    test = training.dataset.take(parts.test)
    compared = training.champion if parts.comparable else None
    prior = float(np.mean(training.dataset.target[parts.train]))
    contest = Contest(
        truth=test.target,
        candidate=judged.predict(test),
        champion=compared.predict(test) if compared else None,
        prior=np.full(test.rows, prior),
    )
    by = blocks(test.event_time)
    return evaluate(
        training.task, contest, test.columns + test.beside, by, training.seed
    ), by.unit if by else "none"


def _pack(training: Training, published: Fitted, sha256: str) -> bytes:
    dataset, job = training.dataset, training.job
    rows = dataset.take(np.array(artifact.golden_rows(dataset.rows), dtype=np.int64))
    outputs = published.predict(rows).tolist()
    manifest = {
        "format": artifact.FORMAT,
        "pipeline": job.pipeline,
        "pipeline_version": job.pipeline_version,
        "pipeline_sha256": job.pipeline_sha256,
        "task": training.task,
        "features": [_feature(column, published.categories) for column in dataset.columns],
        "objective": training.learner.objective,
        "lightgbm": training.learner.libraries["lightgbm"],
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


def _trained(
    training: Training, parts: Split, metrics: list[MetricEvidence], block: str, sha256: str, data: bytes
) -> Trained:
    dataset, job = training.dataset, training.job
    compared = training.champion is not None and parts.comparable
    return Trained(
        dataset=DatasetRef(
            sha256=sha256,
            rows=dataset.rows,
            train_rows=len(parts.train),
            test_rows=len(parts.test),
            cut=job.cut,
            first_event_time=_moment(dataset.event_time[0]),
            last_event_time=_moment(dataset.event_time[-1]),
        ),
        artifact_sha256=hashlib.sha256(data).hexdigest(),
        artifact_bytes=len(data),
        champion_version=job.champion.model_version if compared and job.champion else None,
        metrics=metrics,
        parameters={
            **training.parameters().as_values(),
            "seed": training.seed,
            "refit": training.pipeline.training.refit,
            "embargo": parts.embargo,
            "bootstrap_block": block,
        },
        libraries=dict(training.learner.libraries),
        seconds=training.watch.seconds,
    )
