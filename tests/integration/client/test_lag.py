"""Lag counts records, not offsets."""

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from everloop.lag import lag_by_group
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import transactional_producer
from everloop_kernel.settings import KafkaSettings

pytestmark = pytest.mark.integration


async def produce(kafka: KafkaSettings, topic: str, count: int) -> None:
    producer = transactional_producer(kafka, f"{topic}-writer")
    await producer.start()
    try:
        for _ in range(count):
            async with producer.transaction():
                await producer.send(topic, b"x", partition=0)
    finally:
        await producer.stop()


async def commit(kafka: KafkaSettings, group: str, topic: str, offset: int) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
    )
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.commit({partition: offset})
    finally:
        await consumer.stop()


async def test_transaction_markers_are_no_lag(kafka, unique):
    """A platform that has handled everything must say 0, or nobody can wait for it."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    topic, group = unique("t"), unique("g")
    await ensure_topics(settings, {topic: (1, {})})
    await produce(settings, topic, 3)
    await commit(settings, group, topic, 5)
    assert await lag_by_group(settings, [group]) == {group: 0}
    await commit(settings, group, topic, 1)
    assert await lag_by_group(settings, [group]) == {group: 2}


async def test_a_new_pipeline_that_nobody_has_read_is_lag(kafka, unique):
    """Before a group's first commit everything is still to do."""
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    topic = f"producer-record-published-v1.{unique('p')}"
    await ensure_topics(settings, {topic: (1, {})})
    before = (await lag_by_group(settings, ["everloop-ingest"]))["everloop-ingest"]
    await produce(settings, topic, 4)
    assert (await lag_by_group(settings, ["everloop-ingest"]))["everloop-ingest"] == before + 4
