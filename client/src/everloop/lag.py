"""How far the consumer groups are behind, to the record: transaction markers count nothing."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from everloop_kernel.kafka import admin_client, close_quietly, reading_consumer, retrying
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import GROUPS, TOPICS, TopicSpec

__all__ = ["lag_by_group"]

Offsets = Mapping[TopicPartition, int]

_MARKERS = 64
"""A gap of at most this many offsets may be markers alone, so it is read and counted."""
_POLL_MILLISECONDS = 200
_READ_SECONDS = 30.0
_RETRIED_SECONDS = 10.0


async def lag_by_group(kafka: KafkaSettings, groups: Iterable[str] = GROUPS) -> dict[str, int]:
    """Records that each group has yet to handle, over all its partitions.

    Raises KafkaError, OSError or TimeoutError when Kafka does not answer.
    """
    async with _clients(kafka) as (admin, consumer):
        existing = await _partitions(admin)
        # all at once: the consumer would pause 0.4 s over each topic that it hears of for the first time
        await consumer._client.set_topics({at.topic for at in existing})  # noqa: SLF001
        begun = {group: await _committed(admin, group, existing) for group in groups}
        new = {group: _unread(group, existing - offsets.keys()) for group, offsets in begun.items()}
        first = await _offsets(consumer.beginning_offsets, new.values())
        for group, offsets in begun.items():
            offsets.update({at: first[at] for at in new[group]})
        ends = await _offsets(consumer.end_offsets, begun.values())
        return {group: await _behind(consumer, offsets, ends) for group, offsets in begun.items()}


async def _partitions(admin: AIOKafkaAdminClient) -> set[TopicPartition]:
    topics = await admin.describe_topics()
    return {
        TopicPartition(topic["topic"], part["partition"]) for topic in topics for part in topic["partitions"]
    }


async def _committed(
    admin: AIOKafkaAdminClient, group: str, existing: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    # the coordinator of a new cluster is not there at once
    found: Mapping[TopicPartition, Any] = await retrying(_RETRIED_SECONDS)(
        admin.list_consumer_group_offsets, group
    )
    return {at: entry.offset for at, entry in found.items() if entry.offset >= 0 and at in existing}


def _unread(group: str, uncommitted: Iterable[TopicPartition]) -> set[TopicPartition]:
    """Partitions that the group is there to read and has not begun: it begins at their beginning."""
    patterns = [re.compile(spec.pattern) for spec in _read_by(group)]
    return {at for at in uncommitted if any(pattern.match(at.topic) for pattern in patterns)}


async def _offsets(
    ask: Callable[[list[TopicPartition]], Awaitable[Offsets]], groups: Iterable[Iterable[TopicPartition]]
) -> Offsets:
    """One request for the partitions of all groups: each one may wait for metadata."""
    wanted = list({at for partitions in groups for at in partitions})
    return await ask(wanted) if wanted else {}


def _read_by(group: str) -> list[TopicSpec]:
    """The topics that the group consumes: no compacted one, and none of its own, read to restore state."""
    service, *kinds = group.removeprefix("everloop-").split("-")
    return [
        spec
        for spec in TOPICS.values()
        if service in spec.consumers
        and spec.producers != {service}
        and spec.config.get("cleanup.policy") != "compact"
        and spec.kind in {"data", "decision"}
        and (not kinds or kinds[0].startswith(spec.kind))
    ]


async def _behind(consumer: AIOKafkaConsumer, begun: Offsets, ends: Offsets) -> int:
    gaps = {at: max(0, ends[at] - offset) for at, offset in begun.items()}
    small = {at: begun[at] for at, gap in gaps.items() if 0 < gap <= _MARKERS}
    certain = sum(gap for at, gap in gaps.items() if at not in small)
    uncertain = await _count(consumer, small, ends) if small else 0
    return int(certain) + uncertain


async def _count(consumer: AIOKafkaConsumer, starts: Offsets, ends: Offsets) -> int:
    """Read what may be markers alone. The ends are those of committed records, so that reading gets there."""
    consumer.assign(list(starts))
    for at, offset in starts.items():
        consumer.seek(at, offset)
    count, left = 0, set(starts)
    async with asyncio.timeout(_READ_SECONDS):
        while left:
            pages = await consumer.getmany(*left, timeout_ms=_POLL_MILLISECONDS)
            count += len([1 for at, page in pages.items() for record in page if record.offset < ends[at]])
            left = {at for at in left if await consumer.position(at) < ends[at]}
    return count


@asynccontextmanager
async def _clients(kafka: KafkaSettings) -> AsyncIterator[tuple[AIOKafkaAdminClient, AIOKafkaConsumer]]:
    admin, consumer = admin_client(kafka), reading_consumer(kafka, fetch_max_wait_ms=50)
    try:
        await admin.start()
        await consumer.start()
        yield admin, consumer
    finally:
        await close_quietly(consumer)
        await close_quietly(admin)
