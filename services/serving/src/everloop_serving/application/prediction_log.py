"""Every event leaves this process once and in order, whether or not Kafka is there.

Events wait in memory and are published in transactions. While Kafka is away they move to a bounded spool on
disk, and leave from there first. Each transaction also commits a `Position`, so that after an unclear outcome
(a broker that died during a commit, a process that died before it forgot) nothing is published twice.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, Protocol, TypeVar

import msgspec
from everloop_kernel.stream_writer import Output

from everloop_serving.metrics import DROPPED_EVENTS, PUBLISHED_EVENTS, SPOOL_BYTES

__all__ = ["Numbered", "Position", "PredictionLog", "Publisher", "Spool", "Unreachable"]

_BATCH_EVENTS = 5000
_LONGEST_PAUSE_SECONDS = 5.0
_DRAIN_SECONDS = 3.0
_COMPLAIN_SECONDS = 10.0
_LARGEST_EVENT_BYTES = 1 << 20
"""Kafka would refuse a much larger one, and with it every event behind."""
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How far a process has published: its life's name, and the number of its last event."""

    life: str
    number: int


class Numbered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event with its place in the order of its life."""

    position: Position
    event: Output


class Unreachable(Exception):  # noqa: N818  (a state of the world)
    """Kafka cannot be used now; whether the last transaction counted, `connect` will tell."""


class Publisher(Protocol):
    """Kafka, as far as this needs it."""

    async def connect(self) -> Position | None:
        """End what is half done, and say what was published last; Unreachable."""
        ...

    async def publish(self, events: Sequence[Numbered]) -> None:
        """All of them with their last position, or none; Unreachable."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


class Spool(Protocol):
    """A queue on disk that survives the process."""

    @property
    def size_bytes(self) -> int:
        """What it takes on disk."""
        ...

    def append(self, events: Sequence[Numbered]) -> int:
        """Store events durably, in order, as many as fit; the number stored."""
        ...

    def peek(self, limit: int) -> list[Numbered]:
        """The oldest events."""
        ...

    def drop(self, count: int) -> None:
        """Forget the oldest events."""
        ...


@dataclass(slots=True)
class _Complaints:
    """A log line about lost events at most every ten seconds, with their number."""

    unreported: int = 0
    last: float = float("-inf")

    def add(self, count: int, why: str) -> None:
        self.unreported += count
        if time.monotonic() - self.last >= _COMPLAIN_SECONDS:
            _log.error("%d prediction events are lost: %s", self.unreported, why)
            self.unreported, self.last = 0, time.monotonic()


class PredictionLog:
    """The component that publishes; `append` is called on the hot path."""

    name = "prediction-log"

    def __init__(
        self,
        publisher: Publisher,
        spool: Spool,
        *,
        life: str,
        linger_seconds: float,
        most_in_memory: int,
        writers_ended: Sequence[asyncio.Event] = (),
    ) -> None:
        self._publisher = publisher
        self._spool = spool
        self._life = life
        self._linger_seconds = linger_seconds
        self._most = most_in_memory
        self._queue: deque[Numbered] = deque()
        self._next = 1
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._writers_ended = writers_ended
        self._stopped: asyncio.Task[Literal[True]] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._connected = False
        self._failures = 0
        self._complaints = _Complaints()

    @property
    def queued(self) -> int:
        """Events in memory."""
        return len(self._queue)

    def append(self, event: Output) -> None:
        """Take an event; a full memory drops it and counts that."""
        if len(event.value or b"") > _LARGEST_EVENT_BYTES:
            self._lose(1, "too-large", f"an event has more than {_LARGEST_EVENT_BYTES} bytes")
            return
        if len(self._queue) >= self._most:
            self._lose(1, "memory", f"{self._most} are waiting in memory; see EVERLOOP_SERVING_QUEUE_EVENTS")
            return
        self._queue.append(Numbered(Position(self._life, self._next), event))
        self._next += 1
        if not self._wake.is_set():
            self._wake.set()

    async def run(self) -> None:
        """Publish until `stop`, and then what is left, or put it on disk."""
        self._stopped = asyncio.create_task(self._stopping.wait())
        while not self._stopping.is_set():
            await self._wait()
            await self._advance()
        end = time.monotonic() + _DRAIN_SECONDS
        while self._queue and time.monotonic() < end and not self._failures:
            await self._advance()
        await self._spill()
        await self._publisher.close()

    def stop(self) -> None:
        """Ask for the end: it comes when nobody appends any more."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._end())

    async def _end(self) -> None:
        for writer in self._writers_ended:
            await writer.wait()
        self._stopping.set()
        self._wake.set()

    def not_ready(self) -> str | None:
        """Always ready: answers do not wait for Kafka."""
        return None

    async def _wait(self) -> None:
        """Until there is something to publish, and a little longer; after a failure, before the next try."""
        if self._failures:
            await self._sleep(min(0.25 * 2 ** min(self._failures, 10), _LONGEST_PAUSE_SECONDS))
        elif not self._queue and not (self._connected is False and self._spool.size_bytes):
            self._wake.clear()
            await self._wake.wait()
        if not self._failures and len(self._queue) < _BATCH_EVENTS:
            await self._sleep(self._linger_seconds)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _advance(self) -> None:
        """One step: connect if need be, then one transaction."""
        if not self._queue and not self._spool.size_bytes:
            return
        try:
            if not self._connected:
                await self._connect()
            await self._publish_spool()
            await self._publish_queue()
            self._failures = 0
        except Unreachable as error:
            self._connected = False
            self._failures += 1
            if self._failures == 1:
                _log.warning("Kafka is away; prediction events wait: %s", error)
            await self._spill()

    async def _patiently(self, call: Coroutine[None, None, Result]) -> Result:
        """Wait for Kafka, but not for long once a stop was asked for: the disk keeps what is in doubt."""
        task = asyncio.create_task(call)
        assert self._stopped is not None  # set by run
        await asyncio.wait({task, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=_DRAIN_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
            raise Unreachable("Kafka does not answer and serving is to stop")
        return task.result()

    async def _connect(self) -> None:
        """Connect, and forget what turns out to have been published."""
        published = await self._patiently(self._publisher.connect())
        self._connected = True
        while published is not None:
            waiting = await asyncio.to_thread(self._spool.peek, _BATCH_EVENTS)
            done = _published(waiting, published)
            await self._drop_spooled(done)
            if done < len(waiting) or not waiting:
                break
        for _ in range(_published(self._queue, published)):
            self._queue.popleft()

    async def _publish_spool(self) -> None:
        while self._spool.size_bytes and not self._stopping.is_set():
            events = _one_life(await asyncio.to_thread(self._spool.peek, _BATCH_EVENTS))
            if events:
                await self._patiently(self._publisher.publish(events))
                PUBLISHED_EVENTS.inc(len(events))
            await self._drop_spooled(len(events))

    async def _drop_spooled(self, count: int) -> None:
        await asyncio.to_thread(self._spool.drop, count)
        SPOOL_BYTES.set(self._spool.size_bytes)

    async def _publish_queue(self) -> None:
        if self._spool.size_bytes:
            return  # order: what is on disk is older
        events = [self._queue[index] for index in range(min(len(self._queue), _BATCH_EVENTS))]
        if events:
            await self._patiently(self._publisher.publish(events))
            PUBLISHED_EVENTS.inc(len(events))
            for _ in events:
                self._queue.popleft()

    async def _spill(self) -> None:
        """Move everything from memory to disk; what the disk does not take is lost."""
        events = list(self._queue)
        if not events:
            return
        stored = await asyncio.to_thread(self._spool.append, events)
        for _ in events:
            self._queue.popleft()
        if stored < len(events):
            why = "the spool is full; see EVERLOOP_SERVING_SPOOL_BYTES"
            self._lose(len(events) - stored, "disk", why)
        SPOOL_BYTES.set(self._spool.size_bytes)

    def _lose(self, count: int, reason: str, why: str) -> None:
        DROPPED_EVENTS.labels(reason).inc(count)
        self._complaints.add(count, why)


def _published(waiting: Sequence[Numbered] | deque[Numbered], published: Position | None) -> int:
    """How many of the first events `published` covers."""
    if published is None:
        return 0
    count = 0
    for numbered in waiting:
        if numbered.position.life != published.life or numbered.position.number > published.number:
            break
        count += 1
    return count


def _one_life(events: Sequence[Numbered]) -> list[Numbered]:
    """The first events that share a life: a transaction commits one position."""
    return list(takewhile(lambda event: event.position.life == events[0].position.life, events))
