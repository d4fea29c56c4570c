"""The relay: publishes a service's outbox, each event once, in the order of commits.

One instance leads, by a Postgres advisory lock. Per page: one Kafka transaction with the events and, as a
committed offset of the group `<service>-outbox`, the last id published; then the rows are deleted. A crash
in between publishes nothing twice: the next leader starts its producer first (which fences the former one
and ends its transaction), then reads that offset, then deletes what is published.

The leader's session must speak every few seconds or Postgres ends it: a stopped process loses the lock.
When it wakes it may fence its successor before it sees that. So a fenced relay does not end its process: it
asks for the lock again, and whoever holds it fences the other for good.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka.errors import KafkaError
from tenacity import RetryCallState, retry_if_exception

from everloop_kernel.errors import Fenced, one_line
from everloop_kernel.kafka import retrying
from everloop_kernel.metrics import OUTBOX_LEADER, OUTBOX_OLDEST_SECONDS, OUTBOX_PENDING, OUTBOX_PUBLISHED
from everloop_kernel.recorder import outbox
from everloop_kernel.recorder.failures import TRANSIENT
from everloop_kernel.recorder.outbox import Row
from everloop_kernel.recorder.publisher import OutboxWriter, marker_topic
from everloop_kernel.settings import KafkaSettings, PlatformSettings

__all__ = ["OutboxRelay"]

_HEARTBEAT_SECONDS: Final = 5.0
_SESSION_SECONDS: Final = 15
_STANDBY_SECONDS: Final = 1.0
_ENDS_A_TERM: Final = (*TRANSIENT, KafkaError, Fenced)
_LOCK: Final = "SELECT pg_try_advisory_lock(hashtextextended('everloop-outbox-leader:' || $1, 0))"

_log = logging.getLogger(__name__)


class OutboxRelay:
    """Publishes what transactions of `service` have emitted. Every instance runs one; one at a time leads."""

    name = "outbox"

    def __init__(
        self,
        service: str,
        kafka: KafkaSettings,
        pool: Any,
        platform: PlatformSettings | None = None,
        *,
        marker: str | None = None,
    ) -> None:
        self._service = service
        self._kafka = kafka
        self._pool = pool
        self._backoff_seconds = (platform or PlatformSettings()).max_backoff_seconds
        self._marker = marker or marker_topic(service)
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._trouble: str | None = "the outbox relay has not started"
        self._gauged = 0.0
        self._progressed = False

    async def run(self) -> None:
        """Lead or stand by until stopped; a failure that persists is raised."""
        while not self._stop.is_set():
            retry = retry_if_exception(self._may_pass)
            async for attempt in retrying(self._backoff_seconds, retry=retry, before_sleep=self._log_retry):
                with attempt:
                    await self._term()

    def stop(self) -> None:
        """End once what waits is published."""
        self._stop.set()
        self._wake.set()

    def not_ready(self) -> str | None:
        """Why events are not published at present; standing by is ready."""
        return self._trouble

    def _may_pass(self, error: BaseException) -> bool:
        return isinstance(error, _ENDS_A_TERM) and not self._stop.is_set()

    def _log_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self._trouble = f"the outbox of {self._service} is not published: {one_line(error or TimeoutError())}"
        _log.warning("%s; trying again", self._trouble)

    async def _term(self) -> None:
        """Stand by, then lead, until stopped.

        A failure after some progress ends the term without an error: the next one has fresh patience.
        """
        self._progressed = False
        try:
            async with self._session() as connection:
                if not await self._wins(connection):
                    return
                async with self._writer() as writer:
                    identity = await outbox.identity(connection)
                    published = await writer.published(identity)
                    await outbox.delete_up_to(connection, published)
                    await self._lead(connection, writer, identity, published)
        except _ENDS_A_TERM as error:
            if not self._progressed:
                raise
            _log.warning("the outbox of %s lost its leader: %s", self._service, one_line(error))
            await asyncio.sleep(_STANDBY_SECONDS)
        finally:
            OUTBOX_LEADER.labels(self._service).set(0)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        """A connection that wakes us, and that Postgres ends when this process no longer speaks."""
        async with self._pool.acquire() as connection:
            await connection.execute(f"SET idle_session_timeout = '{_SESSION_SECONDS}s'")
            await connection.add_listener(outbox.channel(self._service), self._notified)
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.remove_listener(outbox.channel(self._service), self._notified)

    @asynccontextmanager
    async def _writer(self) -> AsyncIterator[OutboxWriter]:
        writer = OutboxWriter(self._kafka, self._service, self._marker)
        await writer.open()
        try:
            yield writer
        finally:
            await writer.close()

    def _notified(self, *_args: object) -> None:
        self._wake.set()

    async def _wins(self, connection: Any) -> bool:
        """Wait for the leadership; False when asked to stop."""
        while not await connection.fetchval(_LOCK, self._service):
            self._trouble = None
            if await self._waited(self._stop, _STANDBY_SECONDS):
                return False
        OUTBOX_LEADER.labels(self._service).set(1)
        _log.info("publishing the outbox of %s", self._service)
        return True

    async def _lead(self, connection: Any, writer: OutboxWriter, identity: str, published: int) -> None:
        """Publish page after page; when there is none, wait to be woken."""
        while True:
            self._wake.clear()
            rows = await outbox.head(connection, published)
            if rows:
                published = await self._publish(connection, writer, identity, rows)
            elif self._stop.is_set():
                return
            self._trouble, self._progressed = None, True
            if not rows:
                await self._waited(self._wake, _HEARTBEAT_SECONDS)
            await self._report(connection)

    async def _publish(self, connection: Any, writer: OutboxWriter, identity: str, rows: list[Row]) -> int:
        await writer.publish(rows, identity)
        await outbox.delete_up_to(connection, rows[-1].id)
        for row in rows:
            OUTBOX_PUBLISHED.labels(self._service, row.entry.topic).inc()
        return rows[-1].id

    async def _report(self, connection: Any) -> None:
        now = time.monotonic()
        if now - self._gauged >= _HEARTBEAT_SECONDS:
            self._gauged = now
            events, age_seconds = await outbox.pending(connection)
            OUTBOX_PENDING.labels(self._service).set(events)
            OUTBOX_OLDEST_SECONDS.labels(self._service).set(age_seconds)

    @staticmethod
    async def _waited(event: asyncio.Event, seconds: float) -> bool:
        """Whether the event came within the time; a stop while waiting sets both events."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True
