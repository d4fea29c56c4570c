"""Train one model: judge a model of the older rows on the newer ones, then fit what is published."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from everloop_schemas.events import DatasetRef, MetricEvidence, UnseenRows
from everloop_schemas.pipeline import Pipeline
from numpy.typing import NDArray

from everloop_trainer.application.contenders import Contender, Fitted, Learner
from everloop_trainer.application.packing import packed
from everloop_trainer.application.stopwatch import Stopwatch
from everloop_trainer.domain.bootstrap import blocks
from everloop_trainer.domain.comparison import MINIMUM_COMPARED_ROWS
from everloop_trainer.domain.dataset import Dataset
from everloop_trainer.domain.digest import dataset_sha256
from everloop_trainer.domain.evaluation import Contest, evaluate
from everloop_trainer.domain.job import Job, Trained, UntrainableError
from everloop_trainer.domain.matrix import categories_of, encode
from everloop_trainer.domain.metrics import Task
from everloop_trainer.domain.parameters import Parameters, seed_of
from everloop_trainer.domain.split import Split, split, split_by_time

__all__ = ["Training", "microseconds", "train"]

Floats = NDArray[np.float64]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Training:
    """One training's inputs; `champion` is the model in service, where there is one to compare.

    `seen` [rows] marks what it has trained on.
    """

    job: Job
    pipeline: Pipeline
    dataset: Dataset
    seen: NDArray[np.bool_] | None
    learner: Learner
    champion: Contender | None
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


@dataclass(frozen=True, slots=True)
class Judgement:
    """The evidence, whether the champion is in it, and the length of the bootstrap's blocks."""

    metrics: list[MetricEvidence]
    compared: bool
    block: str


def train(training: Training) -> tuple[Trained, bytes]:
    """The result and the artifact's bytes. Raises UntrainableError."""
    _check_rows(training)
    parts = _split(training)
    with training.watch.step("fit_for_evaluation"):
        judged = _fit(training, training.dataset.take(parts.train))
    with training.watch.step("evaluate"):
        judgement = _judge(training, judged, parts)
    published = judged
    if training.pipeline.training.refit:
        with training.watch.step("refit"):
            published = _fit(training, training.dataset)
    with training.watch.step("pack"):
        sha256 = dataset_sha256(training.dataset)
        data = packed(
            job=training.job,
            task=training.task,
            learner=training.learner,
            published=published,
            dataset=training.dataset,
            sha256=sha256,
        )
    return _trained(training, parts, judgement, sha256, data), data


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
    champion, settings = training.job.champion, training.pipeline.training
    if champion is not None and training.seen is None:
        saw = microseconds(champion.last_event_time)
        parts = split_by_time(training.dataset, settings.test_share, saw, settings.minimum_rows)
    else:
        parts = split(training.dataset, settings.test_share, training.seen, settings.minimum_rows)
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


def _judge(training: Training, judged: Fitted, parts: Split) -> Judgement:
    test = training.dataset.take(parts.test)
    champion = training.champion.predict(test) if training.champion and parts.comparable else None
    if champion is not None:
        known = np.flatnonzero(~np.isnan(champion))
        if len(known) >= MINIMUM_COMPARED_ROWS:
            test, champion = test.take(known), champion[known]
        else:
            champion = None
    prior = np.full(test.rows, np.mean(training.dataset.target[parts.train]))
    contest = Contest(truth=test.target, candidate=judged.predict(test), champion=champion, prior=prior)
    by = blocks(test.event_time)
    metrics = evaluate(training.task, contest, test.columns + test.beside, by, training.seed)
    return Judgement(metrics, compared=champion is not None, block=by.unit if by else "none")


def _trained(training: Training, parts: Split, judgement: Judgement, sha256: str, data: bytes) -> Trained:
    dataset, job = training.dataset, training.job
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
        champion_version=job.champion.model_version if judgement.compared and job.champion else None,
        unseen=_unseen(training),
        metrics=judgement.metrics,
        parameters={
            **training.parameters().as_values(),
            "seed": training.seed,
            "refit": training.pipeline.training.refit,
            "embargo": parts.embargo,
            "bootstrap_block": judgement.block,
        },
        libraries=dict(training.learner.libraries),
        seconds=training.watch.seconds,
    )


def _unseen(training: Training) -> UnseenRows | None:
    champion, seen = training.job.champion, training.seen
    if champion is None or seen is None:
        return None
    rows = int(np.count_nonzero(~seen))
    return UnseenRows(champion_version=champion.model_version, rows=rows, needed=MINIMUM_COMPARED_ROWS)
