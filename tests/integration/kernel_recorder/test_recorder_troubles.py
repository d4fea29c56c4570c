"""Servers restart, connections break, topics are missing: it goes on, or says what to do."""

import asyncio
import contextlib
import time
from collections import Counter

import asyncpg
import pytest
from aiokafka.errors import KafkaError
from everloop_kernel import telemetry
from everloop_kernel.kafka import transactional_producer
from everloop_kernel.metrics import CONSUMER_LAG, OUTBOX_PENDING
from everloop_kernel.recorder import transaction
from everloop_kernel.recorder.publisher import OutboxWriter
from everloop_schemas import events
from everloop_schemas.cloudevents import decode
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.integration
VALUES = [b"%d" % number for number in range(2000)]


async def test_broken_database_connections_are_survived(bench, running, until, record):
    """A database that fails over in the middle of a batch must cost seconds, not records."""

    async def slowly(messages, work):
        await record(messages, work)
        await asyncio.sleep(0.01)
        for message in messages:
            work.emit_raw(bench.target, message.value, message.value)

    await bench.send(VALUES)
    async with running(bench.recorder(slowly, max_records=20), bench.relay()):
        for _ in range(5):
            await asyncio.sleep(0.4)
            await _terminate_sessions(bench)
        await until(lambda: _settled(bench, len(VALUES)), 60)
    assert Counter(await bench.applied()) == Counter(VALUES)
    assert Counter(record.value for record in await bench.read(bench.target)) == Counter(VALUES)


async def _terminate_sessions(bench) -> None:
    connection = await asyncpg.connect(bench.postgres.dsn)
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
    await connection.fetch(query, f"everloop-{bench.service}")
    await connection.close()


async def test_a_database_that_stays_away_ends_the_recorder(bench, record):
    """After the bounded backoff the process must end, so that its supervisor and its alerts see it."""
    recorder = bench.recorder(record)
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(1)
    bench.pool.terminate()
    await bench.send([b"x"])
    begin = time.monotonic()
    async with asyncio.timeout(30):
        with pytest.raises(Exception, match="pool is clos"):
            await task
    assert time.monotonic() - begin < 20


async def test_a_missing_topic_is_named(bench, until, monkeypatch):
    """An event for a topic that does not exist must not vanish: the relay says which, and what to do."""
    monkeypatch.setattr("everloop_kernel.kafka._REQUEST_TIMEOUT_MS", 1000)
    async with transaction(bench.pool, bench.service) as work:
        work.emit_raw("no-such-topic", b"k", b"v")
    relay = bench.relay()
    task = asyncio.create_task(relay.run())
    await until(lambda: _true("no-such-topic" in (relay.not_ready() or "")))
    with pytest.raises(KafkaError, match=r"the topic no-such-topic cannot be written: create"):
        async with asyncio.timeout(60):
            await task
    assert await bench.pool.fetchval("SELECT count(*) FROM outbox") == 1


async def test_large_binary_values_pass(bench, running, until):
    """Model artifacts travel as binary chunks of up to a mebibyte."""
    chunks = [bytes([number]) * (1 << 20) for number in range(20)]
    async with transaction(bench.pool, bench.service) as work:
        for chunk in chunks:
            work.emit_raw(bench.target, b"digest", chunk, [("everloop-index", b"\x00\xff")], partition=1)
        work.emit_raw(bench.target, b"digest", None, partition=1)
    async with running(bench.relay()):
        await until(lambda: _settled(bench, 0), 40)
    found = await bench.read(bench.target)
    assert [record.value for record in found] == [*chunks, None]
    assert {record.partition for record in found} == {1}


async def test_an_undone_transaction_publishes_nothing(bench, running, until):
    """An event of a decision that was rolled back must never be seen."""
    with pytest.raises(asyncpg.UndefinedTableError):
        await _emit_and_fail(bench)
    async with transaction(bench.pool, bench.service) as work:
        work.emit_raw(bench.target, b"k", b"done")
    async with running(bench.relay()):
        await until(lambda: _settled(bench, 0))
    assert [record.value for record in await bench.read(bench.target)] == [b"done"]


async def _emit_and_fail(bench) -> None:
    async with transaction(bench.pool, bench.service) as work:
        work.emit_raw(bench.target, b"k", b"undone")
        await work.connection.execute("SELECT * FROM nowhere")


async def test_a_leader_that_is_fenced_by_a_zombie_goes_on(bench, running, until):
    """A former leader that wakes takes the producer before it finds its session gone: nothing may stop."""
    async with running(bench.relay()):
        for number in range(3):
            await _emit(bench, b"%d" % number)
            await until(lambda: _settled(bench, 0))
            zombie = OutboxWriter(bench.kafka, bench.service, bench.dead)
            await zombie.open()
            await zombie.close()
        await _emit(bench, b"last")
        await until(lambda: _settled(bench, 0))
    assert [record.value for record in await bench.read(bench.target)] == [b"0", b"1", b"2", b"last"]


async def _emit(bench, value: bytes) -> None:
    async with transaction(bench.pool, bench.service) as work:
        work.emit_raw(bench.target, b"k", value)


async def test_traces_go_through_the_outbox(bench, running, until, monkeypatch):
    """An engineer must be able to follow one record through the decision to the event, across the outbox."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry._State, "enabled", True)
    monkeypatch.setattr(telemetry, "tracer", provider.get_tracer)
    parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    async def decide(messages, work):
        for message in messages:
            work.emit(_event(), id=f"id-{message.offset}", key="flights", topic=bench.target)

    await bench.send([b"one"], [("traceparent", parent)])
    async with running(bench.recorder(decide), bench.relay()):
        await until(lambda: _published(bench, 1))
    (event,) = await bench.read(bench.target)
    sent, process = exporter.get_finished_spans()
    assert (process.name, sent.name) == (f"process {bench.source}", f"send {bench.target}")
    assert f"{process.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert dict(event.headers)["traceparent"] == telemetry._format(sent.context).encode()
    assert decode(events.RunFailed, event.value, event.headers) == _event()


async def test_lag_ends_at_zero_on_transactional_topics(bench, running, until, record, monkeypatch):
    """Transaction markers take offsets: counted as lag, they would keep an autoscaler busy for ever."""
    monkeypatch.setattr("everloop_kernel.recorder.recorder._WATCH_SECONDS", 0.2)
    producer = transactional_producer(bench.kafka, f"{bench.service}-test")
    await producer.start()
    async with running(bench.recorder(record)):
        for value in (b"a", b"b", b"c"):
            async with producer.transaction():
                await producer.send(bench.source, value, partition=0)
        await until(lambda: _settled(bench, 3))
        await until(lambda: _true(_lag(bench) == 0), 10, "the lag does not end")
    await producer.stop()


async def test_the_outbox_is_measured(bench, running, until):
    """An outbox that fills up must be seen on a dashboard before anybody misses an event."""
    async with running(bench.relay()):
        await until(lambda: _true(OUTBOX_PENDING.labels(bench.service)._value.get() == 0))


def _lag(bench) -> float | None:
    found = {
        sample.labels["partition"]: sample.value
        for metric in CONSUMER_LAG.collect()
        for sample in metric.samples
        if sample.labels["group"] == bench.group
    }
    return found.get("0")


def _event() -> events.RunFailed:
    trigger = events.Trigger(kind="manual", event_id="e", reason="r")
    return events.RunFailed(run_id="r", pipeline="flights", trigger=trigger, reason="why", mend="how")


async def _true(value: bool) -> bool:  # noqa: FBT001
    return value


async def _settled(bench, applied: int) -> bool:
    with contextlib.suppress(asyncpg.InternalClientError, asyncpg.InterfaceError, OSError):
        # the sessions of the test's own pool are terminated too
        return await _none_waiting(bench, applied)
    return False


async def _none_waiting(bench, applied: int) -> bool:
    waiting = await bench.pool.fetchval("SELECT count(*) FROM outbox")
    return len(await bench.applied()) >= applied and waiting == 0


async def _published(bench, count: int) -> bool:
    return len(await bench.read(bench.target)) >= count


async def test_a_killed_broker_is_survived(bench_on_own_kafka, own_kafka, running, until, record):
    """A broker that is killed and started again must cost seconds: no restart of ours, no record."""
    bench = bench_on_own_kafka
    bench.platform = bench.platform.model_copy(update={"max_backoff_seconds": 30})

    async def emitting(messages, work):
        await record(messages, work)
        for message in messages:
            work.emit_raw(bench.target, message.value, message.value)

    async with running(bench.recorder(emitting), bench.relay()):
        await bench.send(VALUES[:100])
        await until(lambda: _settled(bench, 100))
        own_kafka.child.signal(9)
        await asyncio.sleep(1)
        await asyncio.to_thread(own_kafka.start)
        await bench.send(VALUES[100:200])
        await until(lambda: _settled(bench, 200), 60)
    assert Counter(await bench.applied()) == Counter(VALUES[:200])
    assert Counter(record.value for record in await bench.read(bench.target)) == Counter(VALUES[:200])
