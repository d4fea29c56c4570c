"""Publishing to the inbound topics, acknowledged by the broker."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import close_quietly, plain_producer, retrying
from everloop_kernel.settings import KafkaSettings, PlatformSettings

from everloop_ingest.adapters.lane import Lane
from everloop_ingest.application.submitting import InboundRecord, Overloaded, Unavailable

__all__ = ["InboundPublisher"]

_RECORD_OVERHEAD_BYTES: Final = 200
"""Key, headers and framing of a record, roughly."""


class InboundPublisher:
    """One idempotent producer for the HTTP edge; a component for `serve`.

    Records of all requests share batches: while a batch of a partition is at the broker, the next one fills.
    """

    name = "inbound publisher"

    def __init__(self, kafka: KafkaSettings, platform: PlatformSettings, *, most_bytes: int) -> None:
        """`most_bytes` of records may wait for the broker; beyond, `publish` raises Overloaded."""
        self._kafka = kafka
        self._platform = platform
        self._most_bytes = most_bytes
        self._waiting_bytes = 0
        self._producer: AIOKafkaProducer | None = None
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Flush and return from `run`."""
        self._stopping.set()

    def not_ready(self) -> str | None:
        """Ready while connected."""
        return None if self._producer is not None else "not connected to Kafka yet"

    async def run(self) -> None:
        """Hold the producer until `stop`; raises when it cannot send any more (aiokafka #1017)."""
        producer: AIOKafkaProducer = await retrying(self._platform.max_backoff_seconds)(self._connect)
        self._producer = producer
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                {stopping, producer._sender.sender_task},  # noqa: SLF001  (nothing public tells)
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not stopping.done():
                raise EverloopError("the producer of the inbound topics is stuck")
        finally:
            self._producer = None
            stopping.cancel()
            await close_quietly(producer)

    async def _connect(self) -> AIOKafkaProducer:
        producer = plain_producer(self._kafka)
        try:
            await producer.start()
        except BaseException:
            await close_quietly(producer)
            raise
        return producer

    async def publish(self, topic: str, records: Sequence[InboundRecord]) -> None:
        """Return once every record is acknowledged; raises `Unavailable`, and `Overloaded` at once."""
        producer = self._producer
        if producer is None:
            raise Unavailable("Kafka cannot be reached yet")
        size = sum(len(record.value) for record in records) + _RECORD_OVERHEAD_BYTES * len(records)
        if self._waiting_bytes + size > self._most_bytes:
            raise Overloaded("the broker does not keep up")
        self._waiting_bytes += size
        acks = self._put(producer, topic, records)
        for ack in acks:
            ack.add_done_callback(_seen)
        try:
            for ack in acks:
                await asyncio.shield(ack)  # others wait for it too
        finally:
            self._release_after(acks, size)

    def _put(
        self, producer: AIOKafkaProducer, topic: str, records: Sequence[InboundRecord]
    ) -> "list[asyncio.Future[None]]":
        """Give each partition's lane its records; the acknowledgements to wait for."""
        if len(records) == 1:
            return self._lane(producer, topic, records[0].partition).put(records)
        by_partition: defaultdict[int, list[InboundRecord]] = defaultdict(list)
        for record in records:
            by_partition[record.partition].append(record)
        return [
            ack
            for partition, part in by_partition.items()
            for ack in self._lane(producer, topic, partition).put(part)
        ]

    def _lane(self, producer: AIOKafkaProducer, topic: str, partition: int) -> Lane:
        name = (topic, partition)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(producer, topic, partition, lambda: self._lanes.pop(name, None))
        return lane

    def _release_after(self, acks: "Sequence[asyncio.Future[None]]", size: int) -> None:
        """Give the bytes back when the last acknowledgement has come, also if its caller is gone."""
        open_acks = [ack for ack in acks if not ack.done()]
        if not open_acks:
            self._waiting_bytes -= size
            return
        open_acks[-1].add_done_callback(lambda _: self._release_after(open_acks, size))


def _seen(ack: "asyncio.Future[None]") -> None:
    """A failure that nobody waits for any more is no stray one."""
    if not ack.cancelled():
        ack.exception()
