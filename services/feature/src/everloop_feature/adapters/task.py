"""The stream task of one log partition: records in, vectors and state changes out."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from everloop_features import LogRecord, Vector, decode
from everloop_kernel.errors import ConfigurationError
from everloop_kernel.stream import DeadLetter, Output, PartitionTask, RestoreFrom, Step
from everloop_schemas import cloudevents
from everloop_schemas.events import RecordAccepted
from everloop_schemas.rejected import Rejected
from everloop_schemas.topics import TOPICS

from everloop_feature import metrics
from everloop_feature.adapters.events import VectorWriter
from everloop_feature.adapters.progress import Progress
from everloop_feature.domain.partition import Derived, Entry, LogIncompleteError, PartitionFeatures

__all__ = ["STATE_TOPIC", "FeatureTask", "read_record"]

_log = logging.getLogger(__name__)

STATE_TOPIC = "feature-state-changed-v1"


_MEND = (
    "The log begins at offset {} only, so it cannot be computed again: restore the topic from a backup, or "
    "set EVERLOOP_FEATURE_ACCEPT_PARTIAL_STATE=true once and accept that long windows hold too little"
)


class FeatureTask:
    """Vectors and state go to the log partition's number, whatever their keys hash to."""

    def __init__(self, pipeline: str, log: TopicPartition, features: PartitionFeatures) -> None:
        self._pipeline = pipeline
        self._partition = log.partition
        self.features = features
        self._state = TOPICS[STATE_TOPIC].topic_for(pipeline)
        self._progress = Progress(pipeline, log.partition)
        self._complained = False

    @property
    def generation(self) -> str:
        """The pipeline versions that are computed, and how far a replay is."""
        return self.features.generation

    def resume(self, generation: str | None) -> None:
        """Go on with the version that was published last."""
        self.features.resume(generation)

    def adopt(self, running: PartitionTask[Any]) -> bool:
        """Take over the state of the task that has run so far, where it holds all that is needed."""
        return isinstance(running, FeatureTask) and self.features.adopt(running.features)

    def restore_from(self) -> Sequence[RestoreFrom]:
        """Always the whole state: it says itself up to which offset it contains the log."""
        return [RestoreFrom(self._state, self._partition, always=True)]

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a page of the state topic."""
        for record in records:
            if record.key is not None:
                self.features.restore(record.key, record.value)

    def begin(self, beginning: int, committed: int | None) -> int:
        """The committed offset; the log's beginning where state cannot be read and is computed again."""
        try:
            first = self.features.begin(beginning, committed)
        except LogIncompleteError as error:
            raise ConfigurationError(self._unreadable(str(error)), _MEND.format(error.beginning)) from error
        for version, reason in self.features.rebuilds.items():
            told = self._unreadable(f"version {version}: {reason}")
            _log.error("%s: it is computed again from the log", told)
        return first

    def _unreadable(self, reason: str) -> str:
        return f"the feature state on {self._state}, partition {self._partition}, cannot be read ({reason})"

    def catch_up_from(self, position: int) -> int | None:
        """Where the log must be read from beside live records; None when nothing is left to do."""
        start = self.features.catch_up_from(position)
        self._progress.note(*self.features.replay)
        return start

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[Derived[Output]]:
        """Vectors and changed state; what no version has still to see is not even decoded."""
        self._complain()
        keys: dict[int, bytes | None] = {}
        dead: list[DeadLetter] = []
        entries = self._entries(records, self.features.live_position, keys, dead)
        derived = self.features.derive(entries, self._writing(self.features.published, keys))
        return self._step(derived, dead)

    def derive_past(self, records: Sequence[ConsumerRecord], reached: int | None) -> Step[Derived[Output]]:
        """The same for versions that are behind. Poison is passed over: it was set aside when it was live."""
        keys: dict[int, bytes | None] = {}
        entries = self._entries(records, self.features.past_position, keys, [])
        derived = self.features.derive_past(entries, self._writing(self.features.version, keys), reached)
        return self._step(derived, [])

    def apply(self, state: Derived[Output]) -> None:
        """The batch is committed."""
        before = self.features.published
        self.features.apply(state)
        if state.cut is not None:
            self._tell_cut(before, state.cut)
        metrics.VECTORS.labels(self._pipeline).inc(len(state.vectors))
        metrics.STATE_KEYS.labels(self._pipeline, str(self._partition)).set(self.features.keys)
        self._progress.note(*self.features.replay)

    def _step(self, derived: Derived[Output], dead: list[DeadLetter]) -> Step[Derived[Output]]:
        partition, state = self._partition, self._state
        changes = [Output(state, partition, key, value) for key, value in derived.changes]
        return Step([*derived.vectors, *changes], dead, derived, derived.generation)

    def _writing(self, version: int, keys: dict[int, bytes | None]) -> Callable[[Vector], Output]:
        return VectorWriter(self._pipeline, version, self._partition).writing(keys)

    def _tell_cut(self, before: int, offset: int) -> None:
        version = self.features.version
        metrics.CUT.labels(self._pipeline, str(self._partition), str(version)).set(offset)
        _log.info(
            "vectors of %s, partition %d, are those of version %d from offset %d on; version %d ends there",
            self._pipeline, self._partition, version, offset, before,
        )  # fmt: skip

    def _complain(self) -> None:
        """Say once that a model in use gets no fresh state, and what helps."""
        if self.features.unknown and not self._complained:
            self._complained = True
            _log.error(
                "models of %s use versions %s, whose definitions are not on %s: train on the newest version",
                self._pipeline,
                sorted(self.features.unknown),
                self._state,
            )

    def _entries(
        self,
        records: Iterable[ConsumerRecord],
        seen: int,
        keys: dict[int, bytes | None],
        dead: list[DeadLetter],
    ) -> Iterator[Entry]:
        """What some version has still to see, read one by one; notes keys, and sets poison aside."""
        for record in records:
            offset = record.offset
            if offset < seen:
                continue
            read = read_record(record)
            if isinstance(read, Rejected):
                dead.append(DeadLetter(record, read.code, read.reason))
            else:
                keys[offset] = record.key
                yield offset, read


def read_record(record: ConsumerRecord) -> LogRecord | Rejected:
    """A log record: quickly as our ingest writes it, or by the book (structured mode, errors)."""
    try:
        return decode(record.value or b"")
    except (msgspec.DecodeError, RecursionError):
        return cloudevents.decode(RecordAccepted, record.value, record.headers)
