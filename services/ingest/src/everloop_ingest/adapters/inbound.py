"""Publishing to the inbound topics, acknowledged by the broker."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import close_quietly, plain_producer, retrying
from everloop_kernel.settings import KafkaSettings, PlatformSettings

from everloop_ingest.application.submitting import InboundRecord, Unavailable

__all__ = ["InboundPublisher"]

_ACK_SECONDS: Final = 10.0
_FEW_RECORDS: Final = 16
"""Up to so many, records share the producer's own batches with those of other requests."""


class InboundPublisher:
    """One idempotent producer for the HTTP edge; a component for `serve`."""

    name = "inbound publisher"

    def __init__(self, kafka: KafkaSettings, platform: PlatformSettings) -> None:
        self._kafka = kafka
        self._platform = platform
        self._producer: AIOKafkaProducer | None = None
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
        """Return once every record is acknowledged; raises `Unavailable`."""
        producer = self._producer
        if producer is None:
            raise Unavailable("Kafka cannot be reached yet")
        try:
            async with asyncio.timeout(_ACK_SECONDS):
                await asyncio.gather(*await _sent(producer, topic, records))
        except TimeoutError as error:
            raise Unavailable(
                f"Kafka has not acknowledged the records within {_ACK_SECONDS:.0f} s"
            ) from error
        except KafkaError as error:
            raise Unavailable(f"Kafka has refused the records: {error}") from error


async def _sent(producer: AIOKafkaProducer, topic: str, records: Sequence[InboundRecord]) -> list[Any]:
    """Futures of the acknowledgements."""
    if len(records) <= _FEW_RECORDS:
        return [
            await producer.send(topic, value, key, partition=partition, headers=headers)
            for partition, key, value, headers in records
        ]
    by_partition: defaultdict[int, list[InboundRecord]] = defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record)
    sending = [_sent_batches(producer, topic, number, part) for number, part in by_partition.items()]
    return [future for futures in await asyncio.gather(*sending) for future in futures]


async def _sent_batches(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[InboundRecord]
) -> list[Any]:
    """Whole batches: 2 µs a record instead of 23."""
    futures = []
    batch = producer.create_batch()
    for _, key, value, headers in records:
        if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            futures.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
    futures.append(await producer.send_batch(batch, topic, partition=partition))
    return futures
