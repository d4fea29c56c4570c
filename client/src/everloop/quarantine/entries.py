"""Quarantined records with what was decided about them."""

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.kafka import close_quietly
from everloop_kernel.kafka_reading import partitions_of, read_to_end, started_reader
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import QuarantineResolved, RecordQuarantined
from everloop_schemas.topics import TOPICS

from everloop.errors import EverloopError

__all__ = [
    "Entry",
    "Wanted",
    "no_pipeline",
    "open_entries",
    "partitions",
    "read_entries",
    "read_resolutions",
    "topic_of",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One quarantined record."""

    event: RecordQuarantined
    key: bytes | None
    """The inbound record's."""
    resolution: QuarantineResolved | None = None
    """What was decided; None while it waits."""

    @property
    def id(self) -> str:
        """Which inbound record it is: `partition-offset`."""
        return f"{self.event.inbound_partition}-{self.event.inbound_offset}"

    @property
    def data(self) -> bytes:
        """The record's original value."""
        return base64.b64decode(self.event.data_base64)

    def without_data(self) -> "Entry":
        """The same for a list: original values may be large."""
        return Entry(
            self.event.model_copy(update={"data_base64": "", "headers": None}), None, self.resolution
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries; whatever is None does not matter."""

    reason: str | None = None
    """A rule that the record broke, not only the first."""
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: frozenset[str] | None = None
    resolved: bool | None = False
    """Only those that wait (False) or only those that are resolved (True)."""

    def matches(self, entry: Entry) -> bool:
        """Whether this entry is wanted."""
        event = entry.event
        return (
            (self.resolved is None or self.resolved is (entry.resolution is not None))
            and (self.ids is None or entry.id in self.ids)
            and (self.source is None or event.source == self.source)
            and (self.since is None or event.quarantined_at >= self.since)
            and (self.until is None or event.quarantined_at < self.until)
            and (self.reason is None or self.reason in {event.reason, *(v.rule for v in event.violations)})
        )


def no_pipeline(pipeline: str) -> EverloopError:
    """The error for a pipeline whose topics do not exist."""
    return EverloopError(f"There is no pipeline {pipeline}.", "See: everloop pipelines")


def topic_of(base: str, pipeline: str) -> str:
    """A data topic of a pipeline."""
    return TOPICS[base].topic_for(pipeline)


async def partitions(kafka: KafkaSettings, base: str, pipeline: str) -> Sequence[TopicPartition]:
    """The partitions of one of a pipeline's topics; none where it does not exist."""
    consumer = await started_reader(kafka)
    try:
        return await partitions_of(consumer, topic_of(base, pipeline))
    finally:
        await close_quietly(consumer)


async def read_entries(
    kafka: KafkaSettings, pipeline: str, wanted: Wanted, resolutions: Mapping[str, QuarantineResolved]
) -> AsyncIterator[Entry]:
    """Every wanted entry, partition by partition in the order of arrival; an unknown pipeline is an error."""
    found = await partitions(kafka, RecordQuarantined.topic, pipeline)
    if not found:
        raise no_pipeline(pipeline)
    for partition in found:
        async for page in read_to_end(kafka, partition):
            for record in page:
                entry = _entry(record, resolutions)
                if entry is not None and wanted.matches(entry):
                    yield entry


async def open_entries(kafka: KafkaSettings, pipeline: str, wanted: Wanted) -> AsyncIterator[Entry]:
    """Like `read_entries`, with every decision made so far."""
    return read_entries(kafka, pipeline, wanted, await read_resolutions(kafka, pipeline))


def _entry(record: ConsumerRecord, resolutions: Mapping[str, QuarantineResolved]) -> Entry | None:
    event = decode(RecordQuarantined, record.value, record.headers)
    if not isinstance(event, RecordQuarantined):
        return None
    entry = Entry(event, record.key)
    return Entry(event, record.key, resolutions.get(entry.id))


async def read_resolutions(kafka: KafkaSettings, pipeline: str) -> Mapping[str, QuarantineResolved]:
    """What was decided so far (committed), by the entry's id."""
    found: dict[str, QuarantineResolved] = {}
    for partition in await partitions(kafka, QuarantineResolved.topic, pipeline):
        async for page in read_to_end(kafka, partition):
            for record in page:
                event = decode(QuarantineResolved, record.value, record.headers)
                if isinstance(event, QuarantineResolved):
                    found[f"{event.inbound_partition}-{event.inbound_offset}"] = event
    return found
