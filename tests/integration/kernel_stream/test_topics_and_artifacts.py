import hashlib
import random

import pytest
from aiokafka import TopicPartition
from everloop_kernel import artifacts
from everloop_kernel.admin import ensure_topics, lag, missing_topics, topic_drift
from everloop_kernel.artifacts import CHUNK_BYTES, ArtifactCorrupt, ArtifactMissing, chunks, fetch
from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import plain_producer
from everloop_kernel.kafka_reading import read_to_end

pytestmark = pytest.mark.integration


async def test_topics_are_created_once_with_their_settings(settings, unique) -> None:
    """What the files say is what the broker does; a second start changes nothing."""
    first, second = unique("topic"), unique("topic")
    specs = {first: (3, {"retention.ms": "-1"}), second: (1, {"cleanup.policy": "compact"})}
    assert await ensure_topics(settings, specs) == sorted([first, second])
    assert await ensure_topics(settings, specs) == []
    assert await topic_drift(settings, specs) == []
    assert await missing_topics(settings, [first, "no-such-topic"]) == ["no-such-topic"]


async def test_drift_is_reported_by_setting(settings, unique) -> None:
    """Somebody shortened the log's retention by hand: `everloop doctor` must say so."""
    topic, missing = unique("topic"), unique("missing")
    await ensure_topics(settings, {topic: (2, {"retention.ms": "1000"})})
    found = await topic_drift(settings, {topic: (4, {"retention.ms": "-1"}), missing: (1, {})})
    assert {(d.topic, d.setting, d.wanted, d.actual) for d in found} == {
        (topic, "partitions", "4", "2"),
        (topic, "retention.ms", "-1", "1000"),
        (missing, "exists", "yes", None),
    }


async def test_a_setting_that_kafka_does_not_know_is_said_plainly(settings, unique) -> None:
    """A typing mistake in a topic file must not end in a traceback."""
    with pytest.raises(EverloopError, match="refuses to create"):
        await ensure_topics(settings, {unique("topic"): (1, {"retention.milliseconds": "1"})})


async def test_lag_of_a_group_without_offsets_is_empty(settings, unique) -> None:
    """A group that never ran has no lag to report, and asking is no error."""
    assert await lag(settings, unique("group")) == {}


@pytest.fixture
async def artifact_topic(settings, unique, monkeypatch) -> str:
    """A topic for artifacts of this test alone."""
    topic = unique("chunks")
    monkeypatch.setattr(artifacts, "TOPIC", topic)
    await ensure_topics(settings, {topic: (2, {"max.message.bytes": "2097152"})})
    return topic


async def publish(settings, topic: str, records) -> None:
    async with plain_producer(settings) as producer:
        for headers, value in records:
            await producer.send_and_wait(topic, value, b"key", headers=headers, partition=0)


async def test_an_artifact_comes_back_as_it_went(settings, artifact_topic) -> None:
    """What serving loads must be, byte for byte, what was trained."""
    data, other = random.Random(1).randbytes(3 * CHUNK_BYTES + 7), b"small"
    pieces = chunks(data)
    assert len(pieces) == 4
    await publish(settings, artifact_topic, [*pieces[2:], *chunks(other), *pieces[:3], pieces[0]])
    assert await fetch(settings, hashlib.sha256(data).hexdigest(), 10) == data
    assert await fetch(settings, hashlib.sha256(other).hexdigest(), 10) == other


async def test_missing_chunks_are_counted(settings, artifact_topic) -> None:
    """Waiting for ever would hide a lost chunk."""
    data = bytes(2 * CHUNK_BYTES)
    await publish(settings, artifact_topic, chunks(data)[:1])
    with pytest.raises(ArtifactMissing, match="1 of 2 chunks"):
        await fetch(settings, hashlib.sha256(data).hexdigest(), 2)
    with pytest.raises(ArtifactMissing, match="0 of an unknown number"):
        await fetch(settings, "0" * 64, 1)


async def test_a_corrupt_artifact_is_not_returned(settings, artifact_topic) -> None:
    """A flipped bit must not reach production."""
    data = b"x" * 1000
    ((headers, value),) = chunks(data)
    await publish(settings, artifact_topic, [(headers, value[:-1] + b"y")])
    with pytest.raises(ArtifactCorrupt):
        await fetch(settings, hashlib.sha256(data).hexdigest(), 10)


async def test_reading_to_the_end_is_bounded_and_whole(settings, unique) -> None:
    """Restores read every committed record once, and stop though the topic goes on."""
    topic = unique("pages")
    await ensure_topics(settings, {topic: (1, {})})
    async with plain_producer(settings) as producer:
        batch = producer.create_batch()
        for number in range(5000):
            batch.append(timestamp=None, key=None, value=b"%d" % number, headers=[])
        await (await producer.send_batch(batch, topic, partition=0))
    partition = TopicPartition(topic, 0)
    values = [int(r.value) async for page in read_to_end(settings, partition) for r in page]
    assert values == list(range(5000))
    tail = [int(r.value) async for page in read_to_end(settings, partition, last=10) for r in page]
    assert tail == list(range(4990, 5000))
    rest = [int(r.value) async for page in read_to_end(settings, partition, start=4998) for r in page]
    assert rest == [4998, 4999]
