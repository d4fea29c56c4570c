"""How far the consumer groups are behind, to the record: transaction markers count nothing."""

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import GROUPS, TOPICS, TopicSpec

__all__ = ["lag_by_group"]

Offsets = Mapping[TopicPartition, int]

_MARKERS = 64
"""A gap of at most this many offsets may be markers alone, so it is read and counted."""
_READ_MILLISECONDS = 200


async def lag_by_group(kafka: KafkaSettings, groups: Iterable[str] = GROUPS) -> dict[str, int]:
    """Records that each group has yet to handle, over all its partitions."""
    async with _clients(kafka) as (admin, consumer):
        existing = await _partitions(admin)
        begun = {group: await _next_offsets(admin, consumer, group, existing) for group in groups}
        ends = await consumer.end_offsets(list({at for offsets in begun.values() for at in offsets}))
        return {group: await _behind(consumer, offsets, ends) for group, offsets in begun.items()}


async def _partitions(admin: AIOKafkaAdminClient) -> list[TopicPartition]:
    topics = await admin.describe_topics()
    return [
        TopicPartition(topic["topic"], partition["partition"])
        for topic in topics
        for partition in topic["partitions"]
    ]


async def _next_offsets(
    admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, group: str, existing: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where the group goes on: what it committed, else the beginning of what it is there to read."""
    known = set(existing)
    committed = await admin.list_consumer_group_offsets(group)
    offsets = {at: entry.offset for at, entry in committed.items() if entry.offset >= 0 and at in known}
    patterns = [re.compile(spec.pattern) for spec in _read_by(group)]
    new = [at for at in known - offsets.keys() if any(pattern.match(at.topic) for pattern in patterns)]
    return {**offsets, **(await consumer.beginning_offsets(new) if new else {})}


def _read_by(group: str) -> list[TopicSpec]:
    """The topics that the group consumes, as their files say; compacted ones are read without a group."""
    service, *kinds = group.removeprefix("everloop-").split("-")
    return [
        spec
        for spec in TOPICS.values()
        if service in spec.consumers - spec.producers
        and spec.config.get("cleanup.policy") != "compact"
        and spec.kind in {"data", "decision"}
        and (not kinds or kinds[0].startswith(spec.kind))
    ]


async def _behind(consumer: AIOKafkaConsumer, begun: Offsets, ends: Offsets) -> int:
    gaps = {at: max(0, ends[at] - offset) for at, offset in begun.items()}
    small = {at: begun[at] for at, gap in gaps.items() if 0 < gap <= _MARKERS}
    certain = sum(gap for at, gap in gaps.items() if at not in small)
    return certain + (await _count(consumer, small, ends) if small else 0)


async def _count(consumer: AIOKafkaConsumer, starts: Offsets, ends: Offsets) -> int:
    """Read what may be markers alone."""
    consumer.assign(list(starts))
    for at, offset in starts.items():
        consumer.seek(at, offset)
    count, left = 0, set(starts)
    while left:
        pages = await consumer.getmany(*left, timeout_ms=_READ_MILLISECONDS)
        count += sum(record.offset < ends[at] for at, page in pages.items() for record in page)
        positions = {at: await consumer.position(at) for at in left}
        done = {at for at, position in positions.items() if position >= ends[at]}
        if not pages and not done:  # an open transaction hides the rest, which is not handled either
            return count + sum(int(ends[at] - position) for at, position in positions.items())
        left -= done
    return count


@asynccontextmanager
async def _clients(kafka: KafkaSettings) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    options = kafka.client_options()
    admin = AIOKafkaAdminClient(**options)
    consumer = AIOKafkaConsumer(**options, isolation_level="read_committed", fetch_max_wait_ms=50)
    try:
        await admin.start()
        await consumer.start()
        yield admin, consumer
    finally:
        await consumer.stop()
        await admin.close()
