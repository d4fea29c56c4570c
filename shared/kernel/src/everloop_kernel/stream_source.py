"""The group's consumer as a stream processor uses it: positions are always explicit."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from aiokafka import ConsumerRebalanceListener, ConsumerRecord, TopicPartition

from everloop_kernel.kafka import (
    admin_client,
    close_quietly,
    committed_offsets,
    group_consumer,
    look_for,
    set_fetch_wait,
)
from everloop_kernel.kafka_records import deliver_records
from everloop_kernel.settings import KafkaSettings

__all__ = ["Source"]

_POLL_MS: Final = 1000
_PAGE_RECORDS: Final = 1_000_000
_FETCH_WAIT_BUSY_MS: Final = 50
_FETCH_WAIT_IDLE_MS: Final = 1000
_SILENT_BROKER_SECONDS: Final = 20.0
_EXPECTING_SECONDS: Final = 5.0
"""For so long after a topic was looked for, no fetch holds up the questions that lead to its first record."""


class Source:
    """A member of a group that reads by pattern, and the group's committed offsets."""

    def __init__(self, kafka: KafkaSettings, group: str, pattern: str) -> None:
        self._group = group
        self._pattern = pattern
        self._consumer = group_consumer(kafka, group)
        self._admin = admin_client(kafka)
        self._expecting_until = 0.0

    async def start(self, listener: ConsumerRebalanceListener) -> None:
        """Join the group."""
        await self._admin.start()
        self._consumer.subscribe(pattern=self._pattern, listener=listener)
        await self._consumer.start()
        deliver_records(self._consumer)

    async def close(self) -> None:
        """Leave the group."""
        await close_quietly(self._consumer)
        await close_quietly(self._admin)

    async def poll(self, *, busy: bool) -> Mapping[TopicPartition, Sequence[ConsumerRecord]]:
        """What has been delivered. `busy`: the broker must not hold the connection for idle partitions."""
        hasty = busy or time.monotonic() < self._expecting_until
        set_fetch_wait(self._consumer, _FETCH_WAIT_BUSY_MS if hasty else _FETCH_WAIT_IDLE_MS)
        got: Mapping[TopicPartition, Sequence[ConsumerRecord]]
        got = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_PAGE_RECORDS)
        return got

    def look_for(self, topic: str) -> None:
        """Ask the broker at once for a topic that is said to exist, unless it is known."""
        if look_for(self._consumer, topic):
            self._expecting_until = time.monotonic() + _EXPECTING_SECONDS
            set_fetch_wait(self._consumer, _FETCH_WAIT_BUSY_MS)

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, str]]:
        """The group's committed offsets with their metadata, where there are any."""
        return await committed_offsets(self._admin, self._group, partitions)

    async def beginning(self, partition: TopicPartition) -> int:
        """The partition's first offset."""
        offsets: Mapping[TopicPartition, int] = await self._consumer.beginning_offsets([partition])
        return offsets[partition]

    def is_assigned(self, partition: TopicPartition) -> bool:
        """Whether the consumer may be asked about the partition at this moment."""
        return partition in self._consumer.assignment()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Deliver from `offset` on; a partition that is not assigned just now is sought when it is."""
        if self.is_assigned(partition):
            self._consumer.seek(partition, offset)
            self._consumer.resume(partition)

    def position(self, partition: TopicPartition) -> int | None:
        """The offset that is fetched next, None when the partition is not assigned or not positioned."""
        if not self.is_assigned(partition):
            return None
        state = self._consumer._subscription.subscription.assignment.state_value(partition)  # noqa: SLF001
        return int(state.position) if state.has_valid_position else None

    def pause(self, partition: TopicPartition) -> None:
        """Deliver nothing of the partition for now."""
        self._consumer.pause(partition)

    def resume(self, partition: TopicPartition) -> None:
        """Deliver the partition's records again."""
        if self.is_assigned(partition):
            self._consumer.resume(partition)

    def end(self, partition: TopicPartition) -> int | None:
        """The offset after the last committed record, as the newest fetch saw it."""
        offset: int | None = None
        if self.is_assigned(partition):
            offset = self._consumer.last_stable_offset(partition)
        return offset

    def silence(self, partitions: Collection[TopicPartition]) -> str | None:
        """Why the broker seems to be gone, or None."""
        polls = [self._consumer.last_poll_timestamp(each) for each in partitions if self.is_assigned(each)]
        newest = max((poll for poll in polls if poll), default=None)
        if newest is None or time.time() - newest / 1000 <= _SILENT_BROKER_SECONDS:
            return None
        return f"Kafka has not answered {self._group} for more than {_SILENT_BROKER_SECONDS:.0f} s"
