"""What the use cases need from outside: one transaction of the trainer's state, and where runs are kept."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from everloop_schemas.events import Cut, Event
from everloop_schemas.pipeline import Pipeline

from everloop_trainer.domain.job import Champion, Job, Outcome, SegmentFile, Trained, Untrainable
from everloop_trainer.domain.policy import Situation
from everloop_trainer.domain.runs import Progress, Run

__all__ = [
    "Artifacts",
    "Decisions",
    "Definition",
    "Desk",
    "LogBatch",
    "Recording",
    "Runs",
    "StagedRow",
    "Storage",
]


class StagedRow(NamedTuple):
    """A vector (`data`: its values) or a record of the log (`data`: its fields) as JSON; times in µs."""

    offset: int
    label: bool
    id: str
    event_time: int
    known_at: int
    data: str


@dataclass(frozen=True, slots=True)
class Definition:
    """One pipeline version."""

    pipeline: Pipeline
    version: int
    sha256: str
    raw: Mapping[str, Any]
    partitions: int
    event_id: str


@dataclass(frozen=True, slots=True)
class Desk:
    """All that a decision about one pipeline looks at. It is held alone: others wait for this transaction."""

    definition: Definition
    situation: Situation
    progress: Mapping[int, Progress]


@dataclass(frozen=True, slots=True)
class LogBatch:
    """What one batch adds to the progress of one log partition."""

    progress: Progress
    observations: int


class Recording(Protocol):
    """Keeps what the data topics say."""

    async def add_records(self, pipeline: str, batch: LogBatch, rows: Sequence[StagedRow]) -> None:
        """Keep records of one log partition and move its progress forward."""
        ...

    async def vectors_seen(self, pipeline: str, version: int, partition: int) -> int:
        """The highest log offset whose vector is kept; -1 before the first."""
        ...

    async def add_vectors(
        self, pipeline: str, version: int, partition: int, rows: Sequence[StagedRow]
    ) -> None:
        """Keep vectors of one log partition, each above the highest kept, in order."""
        ...


class Decisions(Protocol):
    """Keeps what may start a run, and the runs that it starts."""

    async def desk(self, pipeline: str) -> Desk | None:
        """Take the pipeline's desk; None while the pipeline is not defined."""
        ...

    async def open_run(self, run: Run) -> bool:
        """Keep a new run and take what it answers off the desk; False when its trigger had a run already."""
        ...

    async def supersede(self, pipeline: str, version: int) -> list[Run]:
        """End runs that still wait for vectors of an older version: these will not come any more."""
        ...

    def emit(self, event: Event, *, id: str, key: str) -> None:  # noqa: A002 - the CloudEvents attribute's name
        """Publish with the transaction."""
        ...


class Conclusion(Decisions, Protocol):
    """One transaction that ends a run."""

    async def end_trained(self, run: Run, trained: Trained) -> int | None:
        """End the run with the next model version, which is returned; None when the run is no longer ours."""
        ...

    async def end_failed(self, run: Run, failed: Untrainable) -> bool:
        """End the run without a model; False when it is no longer ours."""
        ...

    def emit_artifact(self, data: bytes) -> int:
        """Publish a model's bytes in chunks; how many."""
        ...


class Runs(Protocol):
    """Runs that wait for work or are worked on; each call is a transaction of its own."""

    async def claim(self) -> Run | None:
        """Take the oldest run whose vectors are complete and that nobody holds."""
        ...

    async def renew(self, run: Run) -> bool:
        """Hold it longer; False when somebody else has it by now."""
        ...

    async def release(self, run: Run, *, crashed: bool) -> None:
        """Give it back; where its process crashed, for a while in which nobody takes it."""
        ...

    async def definition(self, run: Run) -> Definition:
        """The pipeline version that the run trains."""
        ...

    async def champion(self, run: Run) -> Champion | None:
        """The version in service, where this trainer made it."""
        ...

    async def job(self, run: Run) -> Job | None:
        """What an earlier attempt at the run kept."""
        ...

    async def keep_job(self, run: Run, job: Job) -> None:
        """Keep what the model's bytes depend on: for the next attempt, and for verification."""
        ...

    def conclusion(self) -> AbstractAsyncContextManager[Conclusion]:
        """A transaction that ends a run."""
        ...


class Storage(Protocol):
    """Segments of what was recorded."""

    async def segments_below(self, pipeline: str, versions: Collection[int], cut: Cut) -> list[SegmentFile]:
        """Write what is staged, then name every segment of the log and of these versions below the cut."""
        ...


class Artifacts(Protocol):
    """Models' bytes by their digest."""

    async def ensure(self, sha256: str) -> bool:
        """Have these bytes in the local cache, fetched where they are not; False where nobody has them."""
        ...

    def keep(self, sha256: str, data: bytes) -> None:
        """Put them there."""
        ...


class Trainings(Protocol):
    """Training processes."""

    async def outcome(self, job: Job) -> tuple[Outcome, bytes | None]:
        """Do the job, or find what an earlier attempt left. Raises CrashedError."""
        ...

    def forget(self, run_id: str) -> None:
        """Remove what a job left."""
        ...


class CrashedError(Exception):
    """A training process ended without an outcome; the message says how."""
