"""One assigned partition of a stream processor: opened in the right order, then batch after batch."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from tenacity import RetryCallState, retry_if_exception

from everloop_kernel import metrics
from everloop_kernel.dead_letters import DeadLetterLimitExceeded
from everloop_kernel.errors import ConfigurationError, Fenced, one_line
from everloop_kernel.kafka import retrying
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.stream_backlog import Backlog
from everloop_kernel.stream_batches import Batches
from everloop_kernel.stream_replay import Replay
from everloop_kernel.stream_source import Source
from everloop_kernel.stream_task import LaneSettings, PartitionTask, ReplayingTask
from everloop_kernel.stream_writer import PartitionWriter

__all__ = ["Lane"]

log = logging.getLogger(__name__)

TAIL_SECONDS = 1.0
"""After so long without records the offset is committed past trailing transaction markers: lag is zero."""
RESTS = 4
"""A lane rests for so many times as long as its last transaction took, if few records wait."""


class Lane:
    """Handles the records of one partition, in order.

    Opening: start the partition's producer (fences the previous owner, ends its transaction) → restore the
    state → read the committed offset → seek there → only then handle records. The seek drops what was
    delivered earlier: that was read from an offset that the previous owner may have moved since.
    """

    def __init__(self, partition: TopicPartition, source: Source, settings: LaneSettings) -> None:
        self.partition = partition
        self.position: int | None = None
        self.backlog = Backlog(settings.max_records)
        self._paused = False
        self._arrived = asyncio.Event()
        self._source = source
        self._settings = settings
        self._writer = PartitionWriter(settings.kafka, settings.group, partition)
        self._batches = Batches(partition, self._writer, settings)
        self._replay = Replay(partition, settings, self._arrived.set)
        self._task: PartitionTask[Any] | None = None
        self._released = asyncio.Event()
        self._released.set()
        self._transaction = asyncio.Lock()
        self._stopping = False
        self._reopen = False
        self._last_active = 0.0
        self._rested_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether records can be handled: producer held, state restored, position known."""
        return self._writer.is_open and self._task is not None and self.position is not None

    def put(self, records: Sequence[ConsumerRecord]) -> None:
        """Queue delivered records; a partition with enough is paused."""
        self.backlog.put(records)
        self._arrived.set()
        if self.backlog.is_full:
            self._paused = True
            self._source.pause(self.partition)

    def clear(self) -> None:
        """Forget delivered records: they will be delivered again."""
        self.backlog.clear()
        self._paused = False

    def hold(self) -> None:
        """Begin no further transaction: a rebalance is under way."""
        self._released.clear()

    async def quiet(self) -> None:
        """Wait until the transaction in flight has ended."""
        async with self._transaction:
            pass

    def release(self) -> None:
        """Go on after a rebalance that left the partition here: from the committed offset."""
        self.clear()
        if self.is_open and self.position is not None:
            self._source.seek(self.partition, self.position)
        self._released.set()

    def reopen(self) -> None:
        """Ask for a new task before the next batch."""
        self._reopen = True
        self._arrived.set()

    def stop(self) -> None:
        """Return from `run` after the batch in flight; queued records stay for the next owner."""
        self._stopping = True
        self._arrived.set()
        self._released.set()

    async def close(self) -> None:
        """Give up the producer, and a replay under way."""
        await self._replay.close()
        await self._writer.close()

    async def run(self) -> None:
        """Handle records until `stop`, or until the partition has been silent for long (then run again)."""
        going = True
        while going and not self._stopping:
            retry = retrying(
                self._settings.max_backoff_seconds,
                retry=retry_if_exception(_may_pass),
                before_sleep=self._count_retry,
            )
            going = await retry(self._advance)
        await self.close()

    async def _advance(self) -> bool:
        """One transaction, or less; False when the lane may close. Repeating it after a failure is safe."""
        if self._reopen or not self.is_open:
            await self._open()
        if not await self._wait_for_work():
            silent_seconds = time.monotonic() - self._last_active
            return self._reopen or self._replay.is_running or silent_seconds < self._settings.idle_seconds
        if self.backlog:
            await self._rest()
        async with self._transaction:
            if self._released.is_set() and not self._stopping:
                await self._work()
        return True

    async def _rest(self) -> None:
        """Let records gather for some times as long as the last transaction took, unless there are enough.

        A transaction costs the broker the same however few records it holds. So a busy broker gets fewer and
        larger ones, and the first record after a pause does not wait. A slice of the past uses the rest.
        """
        while not self._stopping and not self._replay.is_ready and (missing := self._missing_rest()) > 0:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(missing):
                    await self._arrived.wait()

    def _missing_rest(self) -> float:
        return 0.0 if self.backlog.is_enough else self._rested_at - time.monotonic()

    async def _open(self) -> None:
        """Become the partition's owner; the order matters (see the class)."""
        self._last_active = time.monotonic()
        fresh, self._reopen = self._reopen or self._task is None, False
        if self.is_open and await self._adopted():
            return self._begin_replay()
        await self.close()
        await self._writer.open()
        before = await self._committed()
        if not fresh and self._task is not None and before == (self.position, self._task.generation):
            self._start_at(self._task, before[0])
            return self._begin_replay()
        task = await self._settings.open_task(self.partition)
        known = before is not None and before[1] == task.generation
        if isinstance(task, ReplayingTask):
            task.resume(before[1] if before else None)
            known = before is not None
        await self._restore(task, afresh=not known)
        committed = await self._committed()
        if committed != before:
            raise Fenced(f"the offset of {self.partition} moved while this member was taking it over")
        beginning = await self._source.beginning(self.partition)
        self._start_at(task, task.begin(beginning, committed[0] if known and committed else None))
        seconds = time.monotonic() - self._last_active
        log.info("opened %s-%d at offset %d in %.2f s", *self.partition, self.position, seconds)
        return self._begin_replay()

    async def _adopted(self) -> bool:
        """Put a new task in the place of the one that runs, without a pause, if it can go on from there."""
        task = await self._settings.open_task(self.partition)
        if self._task is None or not isinstance(task, ReplayingTask) or not task.adopt(self._task):
            return False
        self._task = task
        return True

    async def _committed(self) -> tuple[int, str] | None:
        return (await self._source.committed([self.partition])).get(self.partition)

    async def _restore(self, task: PartitionTask[Any], *, afresh: bool) -> None:
        for source in task.restore_from():
            if afresh and not source.always:
                continue
            partition = TopicPartition(source.topic, source.partition)
            async for page in read_to_end(self._settings.kafka, partition, last=source.last):
                task.restore(page)
                await asyncio.sleep(0)

    def _start_at(self, task: PartitionTask[Any], position: int) -> None:
        """Without an await: no record may slip in between the seek and the emptied queue."""
        self._task = task
        self.position = position
        self._source.seek(self.partition, position)
        self.clear()

    @property
    def _has_work(self) -> bool:
        return len(self.backlog) > 0 or self._replay.is_ready

    async def _wait_for_work(self) -> bool:
        """True when there is something to handle; False after a while of silence."""
        await self._released.wait()
        if self._has_work or self._reopen or self._stopping:
            return self._has_work
        self._arrived.clear()
        try:
            async with asyncio.timeout(TAIL_SECONDS):
                await self._arrived.wait()
        except TimeoutError:
            await self._commit_tail()
        return self._has_work

    async def _commit_tail(self) -> None:
        """Commit past offsets that hold no record (transaction markers), so that lag reaches zero."""
        async with self._transaction:
            position = self._source.position(self.partition)
            if (
                position is not None
                and not self.backlog
                and self._released.is_set()
                and self._task is not None
                and self.position is not None
                and position > self.position
            ):
                await self._writer.commit((), position, self._task.generation)
                self.position = position

    def _take(self) -> list[ConsumerRecord]:
        batch = self.backlog.take(self._batches.pace.most)
        if self._paused and self.backlog.is_low:
            self._paused = False
            self._source.resume(self.partition)
        return batch

    async def _work(self) -> None:
        """What is due: live records first, then a slice of the past. After a failure both come again."""
        try:
            if self.backlog and self._missing_rest() <= 0:
                await self._handle(self._take())
            if self._replay.is_ready:
                await self._handle_past()
        except BaseException:
            # unknown how much the broker holds: take the partition over from ourselves and look
            await self._writer.close()
            raise

    async def _handle(self, records: list[ConsumerRecord]) -> None:
        assert self._task is not None
        began = self._last_active = time.monotonic()
        self.position = await self._batches.live(self._task, records)
        ended = time.monotonic()
        self._rested_at = ended + min(RESTS * (ended - began), self._settings.longest_rest_seconds)

    async def _handle_past(self) -> None:
        """A slice of the past, as far as it lies below the live position."""
        assert self.position is not None
        found, task, live = self._replay.take(), self._task, self.position
        if found is None or not isinstance(task, ReplayingTask):
            return
        self._last_active = time.monotonic()
        records = [record for record in found.records if record.offset < live]
        reached = found.position >= live
        await self._batches.past(task, records, live, reached=reached)
        self._replay.handled()
        if reached or found.is_last:
            self._begin_replay()

    def _begin_replay(self) -> None:
        """Read what the task has still to see of the past, if anything; what is being read is given up."""
        self._replay.give_up()
        if isinstance(self._task, ReplayingTask) and self.position is not None:
            start = self._task.catch_up_from(self.position)
            if start is not None:
                self._replay.start(start, self.position)

    def _count_retry(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        metrics.RETRIED_BATCHES.labels(self._settings.group, type(error).__name__).inc()
        reason = one_line(error) if error else "unknown"
        log.warning("trying %s-%d again: %s", *self.partition, reason)


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help; what only a person can mend ends the process at once."""
    final = Fenced | DeadLetterLimitExceeded | ConfigurationError
    return isinstance(error, Exception) and not isinstance(error, final)
