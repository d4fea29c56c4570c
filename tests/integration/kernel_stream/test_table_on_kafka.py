import asyncio

import pytest
from aiokafka import TopicPartition
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import close_quietly, plain_producer
from everloop_kernel.kafka_reading import partitions_where, started_reader
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.table import Table

pytestmark = pytest.mark.integration
COMPACTED = {"cleanup.policy": "compact"}


class Contents(dict[tuple[str, bytes], bytes]):
    """What a table has told."""

    calls = 0

    def change(self, topic, key, value, headers) -> None:
        self.calls += 1
        if value is None:
            self.pop((topic, key), None)
        else:
            self[topic, key] = value


async def put(settings, topic: str, pairs) -> None:
    async with plain_producer(settings) as producer:
        for key, value in pairs:
            await producer.send_and_wait(topic, value, key)


@pytest.fixture
async def followed():
    """`table = followed(Table(…))` runs it until the test ends."""
    running: list[tuple[Table, asyncio.Task[None]]] = []

    def follow(table: Table) -> Table:
        running.append((table, asyncio.create_task(table.run())))
        return table

    yield follow
    for table, task in running:
        table.stop()
        await asyncio.wait_for(task, 10)


async def test_a_table_is_read_whole_and_followed(settings, unique, followed, until) -> None:
    """Every instance must know all pipelines, those defined before it started and those after."""
    topic, contents = unique("table"), Contents()
    await ensure_topics(settings, {topic: (2, COMPACTED)})
    await put(settings, topic, [(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"4"), (b"c", None)])
    table = followed(Table(settings, [topic], on_change=contents.change))
    await asyncio.wait_for(table.wait_caught_up(), 10)
    assert contents == {(topic, b"a"): b"3", (topic, b"b"): b"2"}
    assert table.not_ready() is None
    await put(settings, topic, [(b"d", b"5")])
    assert await until(lambda: (topic, b"d") in contents)
    assert await until(lambda: (table.age_seconds() or 99) < 3)


async def test_topics_that_exist_are_found_at_the_first_look(settings, unique) -> None:
    """A service must not start seconds later than it could: metadata is asked for, not waited for."""
    topic = unique("found")
    await ensure_topics(settings, {topic: (2, COMPACTED)})
    consumer = await started_reader(settings)
    try:
        found = await partitions_where(consumer, topic.__eq__)
        assert found == {TopicPartition(topic, 0), TopicPartition(topic, 1)}
        assert await consumer.end_offsets(list(found)) == dict.fromkeys(found, 0)
    finally:
        await close_quietly(consumer)


async def test_topics_of_a_pattern_are_found_later(settings, unique, followed, until) -> None:
    """A new pipeline's state must reach serving without a restart, and the old one's not be read again."""
    prefix, contents = unique("state"), Contents()
    await ensure_topics(settings, {f"{prefix}.a": (1, COMPACTED)})
    await put(settings, f"{prefix}.a", [(b"k", b"1")])
    table = followed(Table(settings, pattern=rf"^{prefix}\.[a-z]+$", on_change=contents.change))
    await asyncio.wait_for(table.wait_caught_up(), 10)
    await ensure_topics(settings, {f"{prefix}.b": (1, COMPACTED)})
    await put(settings, f"{prefix}.b", [(b"k", b"2")])
    assert await until(lambda: contents == {(f"{prefix}.a", b"k"): b"1", (f"{prefix}.b", b"k"): b"2"})
    assert contents.calls == 2


async def test_an_empty_topic_is_caught_up_and_a_missing_one_is_not(settings, unique, followed) -> None:
    """A platform without pipelines is ready; one whose topic is not there is not."""
    topic = unique("empty")
    await ensure_topics(settings, {topic: (1, COMPACTED)})
    empty = followed(Table(settings, [topic], on_change=Contents().change))
    await asyncio.wait_for(empty.wait_caught_up(), 10)
    missing = followed(Table(settings, [unique("missing")], on_change=Contents().change))
    await asyncio.sleep(1.5)
    assert missing.not_ready() is not None
    assert missing.age_seconds() is None


async def test_a_table_outlives_its_broker(own_kafka, followed, until) -> None:
    """Serving must go on without Kafka, know how old its state is, and read nothing twice afterwards."""
    settings, contents = KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers), Contents()
    await ensure_topics(settings, {"t": (1, COMPACTED)})
    await put(settings, "t", [(b"a", b"1")])
    table = followed(Table(settings, ["t"], on_change=contents.change))
    await asyncio.wait_for(table.wait_caught_up(), 10)
    own_kafka.child.signal(9)
    assert await until(lambda: (table.age_seconds() or 0) > 4)
    assert table.not_ready() is None
    await asyncio.to_thread(own_kafka.start)
    await put(settings, "t", [(b"b", b"2")])
    assert await until(lambda: ("t", b"b") in contents, seconds=30)
    assert contents.calls == 2
    assert await until(lambda: (table.age_seconds() or 99) < 3)


async def test_a_table_waits_for_a_broker_that_starts_later(own_kafka, followed) -> None:
    """The order of starting must not matter."""
    contents = Contents()
    settings = KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers)
    await ensure_topics(settings, {"t": (1, COMPACTED)})
    own_kafka.stop()
    table = followed(Table(settings, ["t"], on_change=contents.change))
    await asyncio.sleep(0.5)
    assert table.not_ready() is not None
    await asyncio.to_thread(own_kafka.start)
    await asyncio.wait_for(table.wait_caught_up(), 30)
