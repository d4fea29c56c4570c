"""Rebuild a model from the raw log and compare: what an audit asks for."""

from dataclasses import dataclass
from typing import Protocol

from everloop_schemas.events import Cut

from everloop_trainer.domain.job import Job, LogFile, Outcome

__all__ = ["Comparison", "Made", "Models", "RawLogs", "Rebuilds", "Verification", "verify"]


@dataclass(frozen=True, slots=True)
class Made:
    """What was recorded when a model was made."""

    job: Job
    dataset_sha256: str
    artifact_sha256: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """A digest as recorded and as rebuilt; None where nothing could be rebuilt."""

    recorded: str
    rebuilt: str | None
    equal: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """Whether dataset and model follow from the log; `problem` says why they could not be rebuilt."""

    dataset: Comparison
    artifact: Comparison
    rows: int | None
    problem: str | None


class Models(Protocol):
    """Models that this trainer has made."""

    async def made(self, pipeline: str, model_version: int) -> Made | None:
        """One of them."""
        ...


class RawLogs(Protocol):
    """The pipelines' logs as Kafka has them."""

    async def copy(self, pipeline: str, cut: Cut, name: str) -> list[LogFile]:
        """Copy what lies below the cut to local files, in a directory of this name."""
        ...


class Rebuilds(Protocol):
    """Training processes that are not runs."""

    async def rebuild(self, job: Job, name: str) -> Outcome:
        """Do the job in a directory of this name, which is removed afterwards with all in it."""
        ...


async def verify(made: Made, name: str, logs: RawLogs, rebuilds: Rebuilds) -> Verification:
    """Read the log again, compute vectors, dataset and model anew; `name` is of this verification alone."""
    log = await logs.copy(made.job.pipeline, made.job.cut, name)
    outcome = await rebuilds.rebuild(made.job.model_copy(update={"segments": [], "log": log}), name)
    trained = outcome.trained
    return Verification(
        dataset=_compare(made.dataset_sha256, trained.dataset.sha256 if trained else None),
        artifact=_compare(made.artifact_sha256, trained.artifact_sha256 if trained else None),
        rows=trained.dataset.rows if trained else None,
        problem=outcome.failed.reason if outcome.failed else None,
    )


def _compare(recorded: str, rebuilt: str | None) -> Comparison:
    return Comparison(recorded, rebuilt, recorded == rebuilt)
