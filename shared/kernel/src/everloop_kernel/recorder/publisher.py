"""Publishing one page of the outbox: the events and the last id, in one Kafka transaction."""

from collections.abc import Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from everloop_schemas import topics
from everloop_schemas.partition import partition_of

from everloop_kernel.errors import ConfigurationError, EverloopError, Fenced
from everloop_kernel.kafka import admin_client, close_quietly, committed_offsets
from everloop_kernel.recorder.outbox import Entry, Row
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.stream_writer import Output, PartitionWriter

__all__ = ["OutboxWriter", "marker_topic"]

_MEND: Final = "create the platform's topics with `everloop up`, or apply the pipeline again"


def marker_topic(service: str) -> str:
    """The topic under which the published id is committed: the dead letters of the service's first group."""
    for group in topics.GROUPS:
        if group == f"everloop-{service}" or group.startswith(f"everloop-{service}-"):
            return topics.dead_letter_topic(group)
    raise ConfigurationError(f"{service} has no consumer group", "Give the relay a marker topic")


class OutboxWriter(PartitionWriter):
    """The outbox's transactional producer. Opening it fences whoever published before.

    The last published id is the committed offset of the group `<service>-outbox`; that offset's metadata says
    of which outbox, since ids of a database made anew begin again.
    """

    def __init__(self, kafka: KafkaSettings, service: str, marker: str) -> None:
        super().__init__(kafka, f"{service}-outbox", TopicPartition(marker, 0))

    async def published(self, outbox: str) -> int:
        """The last id of `outbox` that was published; 0 for none."""
        await self._partitions_of(self._partition.topic)
        admin = admin_client(self._kafka)
        try:
            await admin.start()
            found = await committed_offsets(admin, self._group, [self._partition])
        finally:
            await close_quietly(admin)
        offset, metadata = found.get(self._partition, (0, ""))
        return offset if metadata == outbox else 0

    async def publish(self, rows: Sequence[Row], outbox: str) -> None:
        """Publish a page, all or nothing; after an error this writer is closed."""
        outputs = [await self._output(row.entry) for row in rows]
        await self.commit(outputs, rows[-1].id, outbox)

    async def _output(self, entry: Entry) -> Output:
        count = await self._partitions_of(entry.topic)
        partition = partition_of(entry.key or b"", count) if entry.partition is None else entry.partition
        if partition >= count:
            raise EverloopError(f"{entry.topic} has {count} partitions; an event wants number {partition}")
        headers: Any = entry.headers
        return Output(entry.topic, partition, entry.key, entry.value, headers)

    async def _partitions_of(self, topic: str) -> int:
        if self._producer is None:
            raise Fenced(f"the producer of {self._group} is not open")
        try:
            return len(await self._producer.partitions_for(topic))
        except KafkaError as error:
            raise type(error)(f"the topic {topic} cannot be written: {_MEND}") from error
