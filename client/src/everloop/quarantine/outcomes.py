"""What became of records that were sent again, as the topics show it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from everloop_kernel.kafka import admin_client, close_quietly, committed_offsets
from everloop_kernel.kafka_reading import partitions_of, started_reader
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import RecordAccepted, RecordQuarantined

from everloop.quarantine.entries import no_pipeline, topic_of
from everloop.quarantine.resolving import INBOUND, REPLAY_HEADER

__all__ = ["Outcome", "Watch", "watching"]

_GROUP = "everloop-ingest"
_PAUSE_SECONDS = 0.1
_POLL_MS = 200

State = Literal["accepted", "quarantined", "dropped", "waiting"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`dropped`: ingest has passed it, and the log held it already; `waiting`: not passed yet."""

    state: State
    detail: str = ""
    """Of what is quarantined again: the reasons."""


@dataclass(slots=True)
class Watch:
    """Follows a pipeline's topics from where they ended when the watch began."""

    reader: AIOKafkaConsumer
    ends: AIOKafkaConsumer
    """Reads uncommitted too: it knows the end beyond transactions that are still open."""
    admin: AIOKafkaAdminClient
    inbound: Sequence[TopicPartition]
    outputs: Sequence[TopicPartition]
    _places: dict[str, str] = field(default_factory=dict)
    """Inbound partition and offset, `partition-offset`, → the entry's id."""
    _last: dict[str, TopicPartition] = field(default_factory=dict)
    _offsets: dict[str, int] = field(default_factory=dict)
    _found: dict[str, Outcome] = field(default_factory=dict)

    async def outcomes(self, ids: Collection[str], seconds: float) -> Mapping[str, Outcome]:
        """What became of these entries' records, of as many as are through within the time."""
        try:
            async with asyncio.timeout(seconds):
                while not self._found.keys() >= set(ids):
                    await self._look()
                    await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError:
            pass
        return {name: outcome for name, outcome in self._found.items() if name in set(ids)}

    async def _look(self) -> None:
        """Read on. The order matters: whatever ingest had committed lies before the ends asked for later."""
        committed = await committed_offsets(self.admin, _GROUP, self.inbound)
        outputs = await self.ends.end_offsets(self.outputs)
        await self._read(self.inbound, await self.ends.end_offsets(self.inbound))
        await self._read(self.outputs, outputs)
        for name, partition in self._last.items():
            if committed.get(partition, (0, ""))[0] > self._offsets[name]:
                self._found.setdefault(name, Outcome("dropped"))

    async def _read(self, wanted: Sequence[TopicPartition], ends: Mapping[TopicPartition, int]) -> None:
        """Take every committed record below the ends; one beyond may have an inbound record not read yet."""
        for partition in wanted:
            while (position := await self.reader.position(partition)) < ends[partition]:
                got = await self.reader.getmany(partition, timeout_ms=_POLL_MS)
                for record in got.get(partition, []):
                    if record.offset < ends[partition]:
                        self._take(record)
            if position > ends[partition]:
                self.reader.seek(partition, ends[partition])

    def _take(self, record: ConsumerRecord) -> None:
        headers = dict(record.headers)
        if record.topic.startswith(INBOUND):
            name = (headers.get(REPLAY_HEADER) or b"").decode("utf-8", "replace")
            if name:  # a forwarded record carries its header along, and is found again
                self._places[f"{record.partition}-{record.offset}"] = name
                self._last[name] = TopicPartition(record.topic, record.partition)
                self._offsets[name] = record.offset
            return
        place = (headers.get("ce_id") or b"").decode("utf-8", "replace")
        if place in self._places:
            self._found[self._places[place]] = _outcome(record)


def _outcome(record: ConsumerRecord) -> Outcome:
    if record.topic.startswith(RecordAccepted.topic):
        return Outcome("accepted")
    event = decode(RecordQuarantined, record.value, record.headers)
    if not isinstance(event, RecordQuarantined):
        return Outcome("quarantined")
    told = "; ".join(f"{one.field or 'record'}: {one.rule}, {one.mend}" for one in event.violations)
    return Outcome("quarantined", told or event.reason)


@asynccontextmanager
async def watching(kafka: KafkaSettings, pipeline: str) -> AsyncIterator[Watch]:
    """A watch that begins at the present ends: open it before anything is sent."""
    reader, ends = (
        await started_reader(kafka),
        await started_reader(kafka, isolation_level="read_uncommitted"),
    )
    admin = admin_client(kafka)
    await admin.start()
    try:
        inbound = await partitions_of(reader, topic_of(INBOUND, pipeline))
        if not inbound:
            raise no_pipeline(pipeline)
        outputs = [
            partition
            for base in (RecordAccepted.topic, RecordQuarantined.topic)
            for partition in await partitions_of(reader, topic_of(base, pipeline))
        ]
        for topic in {partition.topic for partition in (*inbound, *outputs)}:
            await partitions_of(ends, topic)  # it is assigned nothing: this tells it where the leaders are
        reader.assign([*inbound, *outputs])
        for partition, end in (await reader.end_offsets([*inbound, *outputs])).items():
            reader.seek(partition, end)
        yield Watch(reader, ends, admin, inbound, outputs)
    finally:
        for client in (reader, ends, admin):
            await close_quietly(client)
