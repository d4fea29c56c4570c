"""Keep what the data topics say: records of the log, and vectors."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Protocol

from everloop_trainer.application.ports import LogBatch, Recording, StagedRow
from everloop_trainer.domain.retracted import RETRACTED
from everloop_trainer.domain.runs import Progress

__all__ = ["LogEntry", "LogRecord", "LogVector", "record_log", "record_vectors"]


class Known(Protocol):
    """What happened, and when it was known."""

    @property
    def id(self) -> str:
        """The join key."""
        ...

    @property
    def event_time(self) -> datetime:
        """When it happened; aware."""
        ...

    @property
    def known_at(self) -> datetime:
        """When the platform knew it; aware."""
        ...


class LogRecord(Known, Protocol):
    """The part of a RecordAccepted that is kept."""

    @property
    def kind(self) -> str:
        """`observation` or `label`."""
        ...

    @property
    def fields(self) -> Mapping[str, Any]:
        """Declared fields."""
        ...

    @property
    def retraction(self) -> bool:
        """Whether it withdraws its id's observation; `kind` is label then."""
        ...


class LogVector(Known, Protocol):
    """The part of a VectorComputed that is kept."""

    @property
    def pipeline_version(self) -> int:
        """Whose features these are."""
        ...

    @property
    def log_partition(self) -> int:
        """Where its observation stands."""
        ...

    @property
    def log_offset(self) -> int:
        """Where its observation stands."""
        ...

    @property
    def values(self) -> Sequence[Any]:
        """In the order of the features."""
        ...


LogEntry = tuple[int, LogRecord]
"""A record of the log and its offset."""
Json = Callable[[Any], str]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


async def record_log(
    pipeline: str, partition: int, entries: Sequence[LogEntry], work: Recording, to_json: Json
) -> bool:
    """Keep one partition's records, in offset order; whether there are labels among them."""
    if not entries:
        return False
    observations = [offset for offset, record in entries if record.kind == "observation"]
    labels = sum(record.kind == "label" and not record.retraction for _, record in entries)
    progress = Progress(
        partition=partition,
        next_offset=entries[-1][0] + 1,
        last_observation=observations[-1] if observations else -1,
        labels=labels,
        known_at=max(record.known_at for _, record in entries),
    )
    rows = [_log_row(offset, record, to_json) for offset, record in entries]
    await work.add_records(pipeline, LogBatch(progress, len(observations)), rows)
    return labels > 0


async def record_vectors(pipeline: str, vectors: Sequence[LogVector], work: Recording, to_json: Json) -> None:
    """Keep vectors as they come: in log order within each partition and pipeline version.

    One at or below the highest kept is there already (a feature service may compute a partition again).
    """
    for (version, partition), group in groupby(vectors, lambda v: (v.pipeline_version, v.log_partition)):
        seen = await work.vectors_seen(pipeline, version, partition)
        rows = []
        for vector in group:
            if vector.log_offset > seen:
                rows.append(_vector_row(vector, to_json))
                seen = vector.log_offset
        if rows:
            await work.add_vectors(pipeline, version, partition, rows)


def _log_row(offset: int, record: LogRecord, to_json: Json) -> StagedRow:
    return StagedRow(
        offset,
        record.kind == "label",
        record.id,
        _microseconds(record.event_time),
        _microseconds(record.known_at),
        RETRACTED if record.retraction else to_json(record.fields),
    )


def _vector_row(vector: LogVector, to_json: Json) -> StagedRow:
    return StagedRow(
        vector.log_offset,
        False,  # noqa: FBT003 - a tuple's field
        vector.id,
        _microseconds(vector.event_time),
        _microseconds(vector.known_at),
        to_json(vector.values),
    )


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
