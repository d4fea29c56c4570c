"""Each measure against loss or repetition is taken away once: the test must then see what it is there for."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from everloop_kernel.errors import Fenced
from everloop_kernel.kafka import group_consumer
from everloop_kernel.recorder import Message, outbox, transaction
from everloop_kernel.recorder import consumer as consumer_module
from everloop_kernel.recorder import offsets as offsets_module
from everloop_kernel.recorder.partitions import Partitions
from everloop_kernel.recorder.publisher import OutboxWriter
from everloop_kernel.recorder.recorder import Recorder
from faststream.kafka import KafkaBroker
from faststream.kafka.parser import AioKafkaBatchParser

pytestmark = pytest.mark.integration

Remove = Callable[[pytest.MonkeyPatch], None]
VALUES = [b"%d" % number for number in range(40)]


@pytest.fixture(params=["as it is", "removed"])
def removed(request: pytest.FixtureRequest) -> bool:
    return request.param == "removed"


async def test_compare_and_set_fences_a_former_owner(bench, record, monkeypatch, removed):
    """Two members that both believe to own a partition must not both write it."""
    if removed:
        monkeypatch.setattr(
            offsets_module, "_ADVANCE", offsets_module._ADVANCE.replace("AND next = $4", "AND $4 >= 0")
        )
    partition = TopicPartition(bench.source, 0)
    former, owner = (
        Partitions(bench.service, bench.group, record, bench.pool, bench.platform) for _ in range(2)
    )
    await former.apply(partition, _messages(bench, 0, 10), _no_seek)
    await owner.apply(partition, _messages(bench, 0, 20), _no_seek)
    try:
        await former.apply(partition, _messages(bench, 10, 20), _no_seek)
    except Fenced:
        assert not removed
    assert (len(await bench.applied()) > 20) is removed


async def test_postgres_decides_where_to_begin(bench, record, running, monkeypatch, removed):
    """A database restored from a copy is behind Kafka's offsets: what lies between must come again."""
    if removed:
        monkeypatch.setattr(Partitions, "_locate", _trust_kafka)
    await bench.send(VALUES)
    await _commit_to_kafka(bench, 5)
    async with running(bench.recorder(record)):
        await _settled(bench)
    assert (Counter(await bench.applied()) == Counter(VALUES)) is not removed


async def _trust_kafka(self: Any, partition: TopicPartition, first: int, seek: Any) -> bool:
    async with self._pool.acquire() as connection:
        await offsets_module.claim(connection, self._group, *partition)
        await connection.execute(
            "UPDATE consumer_offsets SET next = $1 WHERE topic = $2 AND partition = $3", first, *partition
        )
    self._known[partition] = first
    return True


async def test_a_raw_parser_takes_any_header(bench, record, running, monkeypatch, removed):
    """FastStream's parser fails on a null header, and the batch is gone without a word."""
    if removed:
        parser = AioKafkaBatchParser(consumer_module.KafkaMessage, None)
        monkeypatch.setattr(consumer_module, "_raw", parser.parse_batch)
    async with running(bench.recorder(record)):
        await bench.send([b"odd"], [("null", None)])
        await asyncio.sleep(1)
        await bench.send([b"plain"])
        await _settled(bench)
    assert ((await bench.applied()).count(b"odd") == 1) is not removed


async def test_no_exception_leaves_the_handler_unseen(bench, record, running, monkeypatch, removed):
    """FastStream logs an exception and goes on: the next batch would commit past the failed one."""
    if removed:
        monkeypatch.setattr(Recorder, "_fail", lambda _self, _error: None)
    failures = []

    async def fails_once(messages, work):
        await record(messages, work)
        if not failures and any(message.value == b"8" for message in messages):
            failures.append(1)
            raise KeyError("a bug that shows once")

    await bench.send(VALUES)
    first = asyncio.create_task(bench.recorder(fails_once, max_records=2).run())
    await asyncio.wait([first], timeout=4)
    if not first.done():
        first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with running(bench.recorder(record)):
        await _settled(bench)
    assert (Counter(await bench.applied()) == Counter(VALUES)) is not removed


async def test_background_acknowledgement_loses_what_is_in_flight(
    bench, record, running, monkeypatch, removed
):
    """Acknowledged before it is handled, and Kafka believed: a crash in the handler would lose the batch."""
    if removed:
        monkeypatch.setattr(Partitions, "_locate", _trust_kafka)
        monkeypatch.setattr(KafkaBroker, "subscriber", _acknowledging_first(KafkaBroker.subscriber))

    async def crashes(messages, work):
        raise KeyError("killed")

    await bench.send(VALUES)
    crashed = asyncio.create_task(bench.recorder(crashes).run())
    await asyncio.wait([crashed], timeout=20)
    assert isinstance(crashed.exception(), KeyError)
    async with running(bench.recorder(record)):
        await _settled(bench)
    assert (Counter(await bench.applied()) == Counter(VALUES)) is not removed


def _acknowledging_first(subscriber: Any) -> Any:
    def wanted(self: Any, *topics: str, **options: Any) -> Any:
        found = subscriber(self, *topics, **options)
        found._connection_args |= {"enable_auto_commit": True, "auto_commit_interval_ms": 1}
        return found

    return wanted


async def test_events_are_published_in_the_order_of_commits(bench, running, until, monkeypatch, removed):
    """An event whose transaction ends late must not be overtaken by the relay's memory of a higher id."""
    if removed:
        monkeypatch.setattr(outbox, "_LOCK", "SELECT $1::text")
    async with running(bench.relay()), bench.pool.acquire() as slow:
        late = slow.transaction()
        await late.start()
        await outbox.append(slow, bench.service, [_entry(bench, b"late")])
        early = asyncio.create_task(_emit(bench, b"early"))
        await asyncio.sleep(1)
        assert early.done() is removed
        await late.commit()
        await early
        await _emit(bench, b"last")
        await until(lambda: _published(bench, b"last"))
    published = [record.value for record in await bench.read(bench.target)]
    assert published == ([b"early", b"last"] if removed else [b"late", b"early", b"last"])


async def test_the_published_id_is_part_of_the_transaction(bench, running, until, monkeypatch, removed):
    """A relay that dies between Kafka's commit and its deletion must not publish the page again."""
    if removed:
        monkeypatch.setattr(OutboxWriter, "published", _forgotten)
    await _emit(bench, b"once")
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "delete_up_to", _dies)
        with pytest.raises(SystemError):
            await bench.relay().run()
    async with running(bench.relay()):
        await _emit(bench, b"after")
        await until(lambda: _published(bench, b"after"))
    published = [record.value for record in await bench.read(bench.target)]
    assert published == [b"once"] * (2 if removed else 1) + [b"after"]


async def _forgotten(_self: Any, _outbox: str) -> int:
    return 0


async def _dies(connection: Any, last: int) -> None:
    if last:
        raise SystemError("killed")


async def test_another_databases_ids_mean_nothing(bench, running, until):
    """A database made anew counts from one again: its events must not be taken for published ones."""
    async with running(bench.relay()):
        for number in range(5):
            await _emit(bench, b"old-%d" % number)
        await until(lambda: _published(bench, b"old-4"))
    await bench.pool.execute("TRUNCATE outbox RESTART IDENTITY")
    await bench.pool.execute("UPDATE outbox_identity SET id = gen_random_uuid()")
    async with running(bench.relay()):
        await _emit(bench, b"new")
        await until(lambda: _published(bench, b"new"), 10)


def _entry(bench, value: bytes) -> outbox.Entry:
    return outbox.Entry(bench.target, 0, None, value, [])


async def _emit(bench, value: bytes) -> None:
    async with transaction(bench.pool, bench.service) as work:
        work.emit_raw(bench.target, None, value, partition=0)


async def _published(bench, value: bytes) -> bool:
    return any(record.value == value for record in await bench.read(bench.target))


def _messages(bench, first: int, last: int) -> list[Message]:
    return [Message(bench.source, 0, number, None, b"%d" % number, (), 0) for number in range(first, last)]


def _no_seek(_partition: TopicPartition, _offset: int) -> None:
    raise AssertionError("nothing is ahead here")


async def _commit_to_kafka(bench, offset: int) -> None:
    consumer = group_consumer(bench.kafka, bench.group)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(bench.source, number) for number in range(4)])
        await consumer.commit({TopicPartition(bench.source, number): offset for number in range(4)})
    finally:
        await consumer.stop()


async def _settled(bench, least_seconds: float = 4, quiet_seconds: float = 1) -> None:
    """Wait until nothing more is being recorded."""
    begin = changed = time.monotonic()
    before = 0
    while (now := time.monotonic()) - begin < least_seconds or now - changed < quiet_seconds:
        if before != (before := len(await bench.applied())):
            changed = now
        await asyncio.sleep(0.1)
