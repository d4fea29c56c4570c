"""Publishing for many requests at once: shared batches, honest acknowledgements, bounded memory."""

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from everloop_ingest.adapters import lane
from everloop_ingest.adapters.inbound import InboundPublisher
from everloop_ingest.application.submitting import InboundRecord, Overloaded, Unavailable
from everloop_kernel.settings import KafkaSettings, PlatformSettings


class Producer:
    """aiokafka's, as far as it is used: batches wait for `ack`, or fail."""

    def __init__(self, batch_bytes: int = 10_000) -> None:
        self.batches: list[tuple[int, int]] = []  # partition, records
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self._batch_bytes = batch_bytes

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(self._batch_bytes, 0)

    async def send_batch(self, builder: Any, _topic: str, *, partition: int) -> "asyncio.Future[None]":
        self.batches.append((partition, builder.record_count()))
        return asyncio.ensure_future(self._acked())

    async def _acked(self) -> None:
        await self.go.wait()
        if self.error is not None:
            raise self.error


def record(partition: int = 0, size: int = 100) -> InboundRecord:
    return InboundRecord(partition, b"k", b"x" * size, [("ce_id", b"1")])


def publisher(producer: Producer, most_bytes: int = 1 << 20) -> InboundPublisher:
    made = InboundPublisher(KafkaSettings(), PlatformSettings(), most_bytes=most_bytes)
    made._producer = producer
    return made


async def test_requests_share_batches_while_one_is_at_the_broker() -> None:
    """A round trip a request would cap single requests at the broker's latency."""
    producer = Producer()
    made = publisher(producer)
    asking = [asyncio.create_task(made.publish("t", [record(n % 2)])) for n in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking += [asyncio.create_task(made.publish("t", [record(n % 2)])) for n in range(40)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in asking)  # no acknowledgement, no answer
    producer.go.set()
    await asyncio.gather(*asking)
    assert sorted(producer.batches) == [(0, 1), (0, 20), (1, 1), (1, 20)]
    assert (made._lanes, made._waiting_bytes) == ({}, 0)


async def test_more_than_a_batch_goes_in_several() -> None:
    """A record must never be left out because a batch was full."""
    producer = Producer()
    producer.go.set()
    made = publisher(producer)
    await made.publish("t", [record(size=900) for _ in range(95)])
    assert sum(count for _, count in producer.batches) == 95
    assert len(producer.batches) > 8


@pytest.mark.parametrize("error", [KafkaError("refused"), AssertionError("a defect of the client")])
async def test_a_failure_is_told_to_everybody_who_waits(error: Exception) -> None:
    """Whoever is behind a failed batch must not wait for ever, nor be told that it was stored."""
    producer = Producer()
    producer.error = error
    made = publisher(producer)
    asking = [asyncio.create_task(made.publish("t", [record()])) for _ in range(3)]
    await asyncio.sleep(0.01)
    asking.append(asyncio.create_task(made.publish("t", [record()])))
    await asyncio.sleep(0.01)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    producer.go.set()
    found = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)
    assert all(isinstance(each, Unavailable) for each in found), found
    assert (made._lanes, made._waiting_bytes) == ({}, 0)


async def test_a_broker_that_does_not_answer_is_given_up(monkeypatch) -> None:
    """A producer is told within seconds, and what waits behind is told too."""
    monkeypatch.setattr(lane, "_ACK_SECONDS", 0.05)
    made = publisher(Producer())
    asking = [asyncio.create_task(made.publish("t", [record()])) for _ in range(3)]
    found = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 5)
    assert all("not acknowledged" in str(each) for each in found), found


async def test_more_than_may_wait_is_refused_at_once() -> None:
    """A slow broker must not fill the memory."""
    producer = Producer()
    made = publisher(producer, most_bytes=1000)
    first = asyncio.create_task(made.publish("t", [record(size=500)]))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await made.publish("t", [record(size=500)])
    producer.go.set()
    await first
    await made.publish("t", [record(size=500)])


async def test_a_client_that_leaves_takes_nobody_along() -> None:
    """Requests share batches, not fates; and what was taken stays counted until it is done."""
    producer = Producer()
    made = publisher(producer)
    leaving, staying = [asyncio.create_task(made.publish("t", [record()])) for _ in range(2)]
    await asyncio.sleep(0.01)
    leaving.cancel()
    await asyncio.sleep(0.01)
    assert made._waiting_bytes > 0
    producer.go.set()
    await asyncio.wait_for(staying, 5)
    await asyncio.sleep(0)
    assert made._waiting_bytes == 0


async def test_without_a_connection_nothing_is_promised() -> None:
    """At the start, and after the client has failed."""
    made = InboundPublisher(KafkaSettings(), PlatformSettings(), most_bytes=1000)
    with pytest.raises(Unavailable):
        await made.publish("t", [record()])
