"""The stream task of one log partition: records in, vectors and state changes out."""

import logging
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from everloop_features import LogRecord, decode
from everloop_kernel.errors import ConfigurationError
from everloop_kernel.stream import DeadLetter, Output, RestoreFrom, Step
from everloop_schemas import cloudevents
from everloop_schemas.events import RecordAccepted
from everloop_schemas.rejected import Rejected
from everloop_schemas.topics import TOPICS

from everloop_feature import metrics
from everloop_feature.adapters.events import VectorWriter
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
        self._features = features
        self._state = TOPICS[STATE_TOPIC].topic_for(pipeline)
        self._writer = VectorWriter(pipeline, features.version, log.partition)
        self._complained = False

    @property
    def generation(self) -> str:
        """The pipeline versions that are computed."""
        return self._features.generation

    def restore_from(self) -> Sequence[RestoreFrom]:
        """Always the whole state: it says itself up to which offset it contains the log."""
        return [RestoreFrom(self._state, self._partition, always=True)]

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Take a page of the state topic."""
        for record in records:
            if record.key is not None:
                self._features.restore(record.key, record.value)

    def begin(self, beginning: int, committed: int | None) -> int:
        """The committed offset; the log's beginning where state cannot be read and is computed again."""
        try:
            first = self._features.begin(beginning, committed)
        except LogIncompleteError as error:
            raise ConfigurationError(self._unreadable(str(error)), _MEND.format(error.beginning)) from error
        for version, reason in self._features.rebuilds.items():
            told = self._unreadable(f"version {version}: {reason}")
            _log.error("%s: it is computed again from the log", told)
        return first

    def _unreadable(self, reason: str) -> str:
        return f"the feature state on {self._state}, partition {self._partition}, cannot be read ({reason})"

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[Derived[Output]]:
        """Vectors and changed state; what no version has still to see is not even decoded."""
        self._complain()
        keys: dict[int, bytes | None] = {}
        dead: list[DeadLetter] = []
        derived = self._features.derive(self._entries(records, keys, dead), self._writer.writing(keys))
        partition, state = self._partition, self._state
        changes = [Output(state, partition, key, value) for key, value in derived.changes]
        return Step([*derived.vectors, *changes], dead, derived)

    def apply(self, state: Derived[Output]) -> None:
        """The batch is committed."""
        self._features.apply(state)
        metrics.VECTORS.labels(self._pipeline).inc(len(state.vectors))
        labels = self._pipeline, str(self._partition)
        metrics.STATE_KEYS.labels(*labels).set(self._features.keys)
        position, target = self._features.replay
        metrics.REPLAY_POSITION.labels(*labels).set(position)
        metrics.REPLAY_TARGET.labels(*labels).set(target)

    def _complain(self) -> None:
        """Say once that a model in use gets no fresh state, and what helps."""
        if self._features.unknown and not self._complained:
            self._complained = True
            _log.error(
                "models of %s use versions %s, whose definitions are not on %s: train on the newest version",
                self._pipeline,
                sorted(self._features.unknown),
                self._state,
            )

    def _entries(
        self, records: Iterable[ConsumerRecord], keys: dict[int, bytes | None], dead: list[DeadLetter]
    ) -> Iterator[Entry]:
        """What some version has still to see, read one by one; notes keys, and sets poison aside."""
        seen = self._features.position
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
