"""Finding partitions, and reading one from somewhere to its present end."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from everloop_kernel.kafka import close_quietly, reading_consumer
from everloop_kernel.settings import KafkaSettings

__all__ = ["partitions_of", "partitions_where", "read_to_end", "started_reader"]

_PAGE_RECORDS = 20_000
_FETCH_BYTES = 8 << 20
_POLL_MS = 500


async def read_to_end(
    kafka: KafkaSettings, partition: TopicPartition, *, last: int | None = None, start: int | None = None
) -> AsyncGenerator[Sequence[ConsumerRecord], None]:
    """Pages of committed records, in order, up to the end that the partition had when the reading began.

    `start` is the first offset wanted; `last` asks for about that many offsets before the end instead
    (transaction markers take some offsets, so there may be fewer records).
    """
    consumer = await started_reader(kafka, max_partition_fetch_bytes=_FETCH_BYTES)
    try:
        consumer.assign([partition])
        begin, end = await bounds(consumer, partition)
        if last is not None:
            begin = max(begin, end - last)
        if start is not None:
            begin = max(begin, start)
        consumer.seek(partition, begin)
        while await consumer.position(partition) < end:
            got = await consumer.getmany(partition, timeout_ms=_POLL_MS, max_records=_PAGE_RECORDS)
            records = got.get(partition, [])
            if records and records[-1].offset >= end:
                records = [record for record in records if record.offset < end]
            if records:
                yield records
    finally:
        await close_quietly(consumer)


async def started_reader(kafka: KafkaSettings, **options: int | str) -> AIOKafkaConsumer:
    """A started reader without partitions yet; closed again if it cannot start."""
    consumer = reading_consumer(kafka, **options)
    try:
        await consumer.start()
    except BaseException:
        await close_quietly(consumer)
        raise
    return consumer


async def bounds(consumer: AIOKafkaConsumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset, and the one after the last committed record (read_committed)."""
    begin: Mapping[TopicPartition, int] = await consumer.beginning_offsets([partition])
    end: Mapping[TopicPartition, int] = await consumer.end_offsets([partition])
    return begin[partition], end[partition]


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """Every partition of an existing topic; none for one that does not exist."""
    # `consumer.topics()` fills metadata of its own: the client's own follows up to 3 s later
    client = consumer._client  # noqa: SLF001
    client.add_topic(topic)
    await client.force_metadata_update()
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


async def partitions_where(
    consumer: AIOKafkaConsumer, wanted: Callable[[str], bool]
) -> frozenset[TopicPartition]:
    """Every partition of every topic whose name is `wanted`, as the cluster has them now.

    The client is told of the topics, so that it asks for their leaders at once: by itself it would learn of
    them when its metadata is next renewed, up to five seconds later.
    """
    client = consumer._client  # noqa: SLF001  (no public call gives partitions along with the topics)
    cluster = await client.fetch_all_metadata()
    topics = [topic for topic in cluster.topics() if wanted(topic)]
    for topic in topics:
        client.add_topic(topic)
    return frozenset(
        TopicPartition(topic, number)
        for topic in topics
        for number in cluster.partitions_for_topic(topic) or ()
    )
