"""Kafka clients as the platform uses them: nothing lost by default, and closed within a time limit.

aiokafka's defaults read uncommitted records, start at the end, commit in the background and wait for one
replica; every client of the kernel is made here instead.
"""

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import GroupLoadInProgressError, KafkaError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from everloop_kernel.settings import KafkaSettings

__all__ = [
    "MAX_RECORD_BYTES",
    "TRANSACTION_TIMEOUT_MS",
    "admin_client",
    "close_quietly",
    "committed_offsets",
    "group_consumer",
    "look_for",
    "plain_producer",
    "reading_consumer",
    "retrying",
    "set_fetch_wait",
    "transactional_producer",
]

log = logging.getLogger(__name__)

TRANSACTION_TIMEOUT_MS = 15_000
"""A dead member's open transaction holds every read_committed reader back for no longer than this."""
MAX_RECORD_BYTES = 2 << 20
"""The largest record that the platform's topics take."""
_RARE_METADATA_AGE_MS = 300_000
"""For a client that waits for no new topic, or looks for them itself; an error renews metadata at once."""
_BATCH_BYTES = 512 << 10
_FETCHER_TICK_SECONDS = 0.2
_OFFSETS_SECONDS = 15.0
_REQUEST_BYTES = 8 << 20
_REQUEST_TIMEOUT_MS = 20_000


def group_consumer(kafka: KafkaSettings, group: str, **options: Any) -> AIOKafkaConsumer:
    """A group's member that reads committed records from the earliest on and never commits by itself.

    Range assignment keeps equal partition numbers of different topics together, and a topic's owners do not
    change when another topic appears (round robin, the default here, does neither).
    """
    return AIOKafkaConsumer(
        **{
            **_reading_options(kafka),
            "group_id": group,
            "session_timeout_ms": kafka.session_timeout_ms,
            "heartbeat_interval_ms": kafka.session_timeout_ms // 3,
            "rebalance_timeout_ms": 30_000,
            "partition_assignment_strategy": (RangePartitionAssignor,),
            **options,
        }
    )


def reading_consumer(kafka: KafkaSettings, **options: Any) -> AIOKafkaConsumer:
    """A reader without a group: it is given its partitions and commits nothing."""
    return AIOKafkaConsumer(
        **{**_reading_options(kafka), "metadata_max_age_ms": _RARE_METADATA_AGE_MS, **options}
    )


def _reading_options(kafka: KafkaSettings) -> dict[str, Any]:
    return {
        **kafka.client_options(),
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "max_partition_fetch_bytes": MAX_RECORD_BYTES,
        "fetch_max_bytes": 32 << 20,
    }


def transactional_producer(kafka: KafkaSettings, transactional_id: str) -> AIOKafkaProducer:
    """A producer whose start fences the previous owner of `transactional_id` and ends its transaction."""
    return AIOKafkaProducer(
        **{
            **kafka.client_options(),
            "metadata_max_age_ms": _RARE_METADATA_AGE_MS,
            "transactional_id": transactional_id,
            "transaction_timeout_ms": TRANSACTION_TIMEOUT_MS,
            "request_timeout_ms": _REQUEST_TIMEOUT_MS,
            "acks": "all",
            "max_batch_size": _BATCH_BYTES,
            "max_request_size": _REQUEST_BYTES,
        }
    )


def plain_producer(kafka: KafkaSettings, **options: Any) -> AIOKafkaProducer:
    """An idempotent producer outside transactions; a send is done when every replica has it."""
    return AIOKafkaProducer(
        **{
            **kafka.client_options(),
            "metadata_max_age_ms": _RARE_METADATA_AGE_MS,
            "enable_idempotence": True,
            "acks": "all",
            "request_timeout_ms": _REQUEST_TIMEOUT_MS,
            "max_batch_size": _BATCH_BYTES,
            "max_request_size": MAX_RECORD_BYTES,
            **options,
        }
    )


def admin_client(kafka: KafkaSettings) -> AIOKafkaAdminClient:
    """A client for topics and groups."""
    return AIOKafkaAdminClient(**{**kafka.client_options(), "metadata_max_age_ms": _RARE_METADATA_AGE_MS})


async def committed_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, tuple[int, str]]:
    """The group's committed offsets with their metadata; a partition without one is left out."""
    if not partitions:
        return {}
    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    offsets = await retrying(_OFFSETS_SECONDS)(_fetch_offsets, admin, group, partitions)
    return {tp: (found.offset, found.metadata) for tp, found in offsets.items() if found.offset >= 0}


async def _fetch_offsets(
    admin: AIOKafkaAdminClient, group: str, partitions: Collection[TopicPartition]
) -> Mapping[TopicPartition, OffsetAndMetadata]:
    """One request; -1 means that nothing was committed.

    aiokafka drops an error of the whole group (a coordinator that is still loading after a restart) and
    answers as if the group had never committed. Whoever believes that publishes everything a second time.
    """
    offsets: Mapping[TopicPartition, OffsetAndMetadata]
    offsets = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
    if not offsets.keys() >= set(partitions):
        raise GroupLoadInProgressError(f"the offsets of {group} are not known yet")
    return offsets


def retrying(max_seconds: float, **options: Any) -> AsyncRetrying:
    """Exponential backoff with jitter that sleeps `max_seconds` at most in total, then raises the last error.

    Time spent in the attempts themselves does not count: a slow broker is not a failing one.
    """

    def spent(state: RetryCallState) -> bool:
        return state.idle_for + state.upcoming_sleep > max_seconds

    return AsyncRetrying(
        **{
            "stop": spent,
            "wait": wait_exponential(0.1, max=5) + wait_random(0, 0.2),
            "retry": retry_if_exception_type((KafkaError, OSError, TimeoutError)),
            "reraise": True,
            **options,
        }
    )


def set_fetch_wait(consumer: AIOKafkaConsumer, milliseconds: int) -> None:
    """Change how long the broker may hold an empty fetch.

    aiokafka has one fetch in flight a broker: while it waits for idle partitions, a busy one that has just
    been drained gets nothing. So waits are short under load and long when idle; no public call says so.
    Its loop looks around five times a second besides, which an idle process need not: a record, a resumed
    partition and a changed assignment all wake it.
    """
    fetcher = consumer._fetcher  # noqa: SLF001
    fetcher._fetch_max_wait_ms = milliseconds  # noqa: SLF001
    fetcher._fetcher_timeout = max(_FETCHER_TICK_SECONDS, milliseconds / 1000)  # noqa: SLF001


def look_for(consumer: AIOKafkaConsumer, topic: str) -> bool:
    """Have metadata renewed now if it lacks a topic that is said to exist; whether it lacked it.

    A subscription by pattern finds a new topic when the client next renews its metadata. Whoever has heard
    of the topic need not wait for that.
    """
    client = consumer._client  # noqa: SLF001  (no public call renews a running consumer's metadata)
    if topic in client.cluster.topics():
        return False
    client.force_metadata_update()
    return True


async def close_quietly(client: Any, seconds: float = 5.0) -> None:
    """Stop a client whose broker may be gone; what it leaves behind ends with the process.

    Stopping is not allowed to fail: whoever stops a client has its result or its error already. It runs in a
    task of its own, since aiokafka's consumer raises CancelledError from `stop` when a fetch is about to be
    repeated, which would end the caller without a word.
    """
    stopping = asyncio.create_task(
        client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop()
    )
    _, late = await asyncio.wait({stopping}, timeout=seconds)
    if not late and not stopping.cancelled() and stopping.exception() is None:
        return
    reason = "too slow" if late else "cancelled" if stopping.cancelled() else repr(stopping.exception())
    log.warning("a Kafka client did not stop cleanly: %s", reason)
    stopping.cancel()
    await _abandon(client)


async def _abandon(client: Any) -> None:
    """Cut the connections of a client that will not stop by itself."""
    sender = getattr(client, "_sender", None)
    if sender is not None and sender.sender_task is not None:
        sender.sender_task.cancel()
    inner = getattr(client, "client", None) or getattr(client, "_client", None)
    if inner is not None:
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(1):
                await inner.close()
