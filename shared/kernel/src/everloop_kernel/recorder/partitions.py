"""The messages of one partition, applied exactly once: one Postgres transaction a batch.

Postgres decides what is new. This member keeps in memory only what it last read or wrote there, forgets that
at each rebalance, and every write compares it: a member that was stopped and lost its partition cannot write
(`Fenced`).
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import TopicPartition
from tenacity import RetryCallState, retry_if_exception

from everloop_kernel import telemetry
from everloop_kernel.dead_letters import DeadLetter, DeadLetterLimit
from everloop_kernel.errors import PermanentError
from everloop_kernel.kafka import retrying
from everloop_kernel.metrics import (
    BATCH_RECORDS,
    BATCH_SECONDS,
    HANDLED_RECORDS,
    REJECTED_RECORDS,
    RETRIED_BATCHES,
)
from everloop_kernel.recorder import offsets
from everloop_kernel.recorder.failures import is_transient, permanent
from everloop_kernel.recorder.message import Handler, Message
from everloop_kernel.recorder.transaction import Transaction
from everloop_kernel.settings import PlatformSettings

__all__ = ["Partitions"]

_log = logging.getLogger(__name__)

Seek = Callable[[TopicPartition, int], None]


class Partitions:
    """What one member of a group knows of its partitions, and how it writes their messages."""

    def __init__(
        self, service: str, group: str, handler: Handler, pool: Any, platform: PlatformSettings
    ) -> None:
        self._service = service
        self._group = group
        self._handler = handler
        self._pool = pool
        self._backoff_seconds = platform.max_backoff_seconds
        self._limit = DeadLetterLimit(group, platform)
        self._known: dict[TopicPartition, int] = {}
        self._assignment = 0

    def forget(self) -> None:
        """A rebalance: what was known may have been overtaken by another member."""
        self._known.clear()
        self._assignment += 1

    async def apply(self, partition: TopicPartition, messages: Sequence[Message], seek: Seek) -> int | None:
        """Apply a batch; returns the partition's next offset, or None after a `seek` to Postgres' own.

        Transient failures are retried, since a transaction leaves nothing half done; then the error is
        raised.
        """
        begin, assignment = time.perf_counter(), self._assignment
        async for attempt in retrying(
            self._backoff_seconds, retry=retry_if_exception(is_transient), before_sleep=self._before_retry
        ):
            with attempt:
                following = await self._apply_known(partition, messages, seek)
        if assignment != self._assignment:
            self._known.pop(partition, None)
        BATCH_SECONDS.labels(self._group).observe(time.perf_counter() - begin)
        return following

    def _before_retry(self, state: RetryCallState) -> None:
        """The failed transaction's outcome is unknown (its commit may have arrived): ask Postgres again."""
        self._known.clear()
        error = state.outcome.exception() if state.outcome else None
        RETRIED_BATCHES.labels(self._group, type(error).__name__).inc()

    async def _apply_known(
        self, partition: TopicPartition, messages: Sequence[Message], seek: Seek
    ) -> int | None:
        if partition not in self._known and not await self._locate(partition, messages[0].offset, seek):
            return None
        following = self._known[partition]
        fresh = [message for message in messages if message.offset >= following]
        if not fresh:
            return following
        try:
            await self._write(partition, fresh)
        except Exception as error:
            refused = permanent(error)
            if refused is None:
                raise
            await self._write_singly(partition, fresh, refused)
        return self._known[partition]

    async def _locate(self, partition: TopicPartition, first: int, seek: Seek) -> bool:
        """Learn where Postgres stands; False after a seek there, when Kafka's own offset was ahead of it.

        Kafka's offset is only a hint, and is ahead after a database was restored from a copy.
        """
        async with self._pool.acquire() as connection:
            following = await offsets.claim(connection, self._group, *partition)
        self._known[partition] = following
        if first <= following:
            return True
        seek(partition, following)
        return False

    async def _write_singly(
        self, partition: TopicPartition, messages: Sequence[Message], refused: PermanentError
    ) -> None:
        """Set aside the messages that no retry can help, and apply the others."""
        if len(messages) == 1:
            await self._write(partition, messages, refused)
            return
        for message in messages:
            try:
                await self._write(partition, [message])
            except Exception as error:
                own = permanent(error)
                if own is None:
                    raise
                await self._write(partition, [message], own)

    async def _write(
        self, partition: TopicPartition, messages: Sequence[Message], refused: PermanentError | None = None
    ) -> None:
        """One transaction: the offset, compared and set; then the handler's effects, or the dead letter."""
        known, following = self._known[partition], messages[-1].offset + 1
        with telemetry.process_span(self._group, partition.topic, partition.partition, messages):
            async with self._pool.acquire() as connection, connection.transaction():
                await offsets.advance(connection, self._group, *partition, known=known, following=following)
                work = Transaction(self._service, connection, self._group)
                if refused is None:
                    await self._handler(messages, work)
                else:
                    work.reject(messages[0], refused.reason_code, refused.message)
                self._limit.check(len(messages), work.dead_letters)
                await work.flush()
        self._known[partition] = following
        self._count(partition, len(messages), work.dead_letters)

    def _count(self, partition: TopicPartition, records: int, dead: Sequence[DeadLetter]) -> None:
        self._limit.count(records, dead)
        BATCH_RECORDS.labels(self._group).observe(records)
        HANDLED_RECORDS.labels(self._group, partition.topic).inc(records)
        for letter in dead:
            REJECTED_RECORDS.labels(self._group, partition.topic, letter.reason_code).inc()
        if dead:
            first = dead[0]
            _log.warning(
                "%s set %d of %d records of %s-%d aside; the first, at %d: %s (%s)",
                *(self._group, len(dead), records, partition.topic, partition.partition),
                *(first.record.offset, first.reason, first.reason_code),
            )
