"""Derive, commit, apply: in that order, each batch in one transaction of its partition's producer."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from everloop_kernel import metrics, telemetry
from everloop_kernel.dead_letters import DeadLetter
from everloop_kernel.errors import PermanentError
from everloop_kernel.stream_task import LaneSettings, PartitionTask, ReplayingTask, Step
from everloop_kernel.stream_writer import PartitionWriter

__all__ = ["Batches", "Pace"]

Records = Sequence[ConsumerRecord]
Transact = Callable[[Records, DeadLetter | None], Awaitable[None]]
"""Handle records in a transaction; or set the only one of them aside instead."""


_LONGEST_DERIVE_SECONDS = 0.25
_FEWEST_RECORDS = 50


class Pace:
    """How many records are derived in a time that the transactions of other partitions can wait.

    Deriving holds the event loop. A refused record costs ten times what a good one does, so a flood of them
    on many partitions held open transactions up until the broker ended them, and with them the process.
    """

    def __init__(self) -> None:
        self._seconds_per_record = 0.0

    @property
    def most(self) -> int | None:
        """Records that the next batch may have; None before any was derived."""
        if not self._seconds_per_record:
            return None
        return max(_FEWEST_RECORDS, int(_LONGEST_DERIVE_SECONDS / self._seconds_per_record))

    def note(self, records: int, seconds: float) -> None:
        """A batch was derived. A few records say little, unless they took long: they bear its fixed cost."""
        if records >= _FEWEST_RECORDS or seconds >= _LONGEST_DERIVE_SECONDS:
            self._seconds_per_record = seconds / records


class Batches:
    """Handles what a lane gives it. After a failure nobody knows what the broker holds: look there first."""

    def __init__(self, partition: TopicPartition, writer: PartitionWriter, settings: LaneSettings) -> None:
        self._partition = partition
        self._writer = writer
        self._settings = settings
        self.pace = Pace()

    async def live(self, task: PartitionTask[Any], records: Records) -> int:
        """Handle the group's next records; the position after them."""
        await self._or_split(records, partial(self._live, task))
        return _after(records)

    async def past(self, task: ReplayingTask[Any], records: Records, live: int, *, reached: bool) -> None:
        """Handle records of the past: with `reached`, all there are below the live position."""
        last = records[-1].offset if records else None
        await self._or_split(records, partial(self._past, task, live, last if reached else -1))

    async def _or_split(self, records: Records, transact: Transact) -> None:
        """A batch that a PermanentError fails is halved until the record that causes it stands alone."""
        try:
            await transact(records, None)
        except PermanentError as error:
            if not records:
                raise
            if not self._writer.is_open:
                await self._writer.open()
            if len(records) == 1:
                await transact(records, DeadLetter(records[0], error.reason_code, error.message))
                return
            middle = len(records) // 2
            await self._or_split(records[:middle], transact)
            await self._or_split(records[middle:], transact)

    async def _live(self, task: PartitionTask[Any], records: Records, poison: DeadLetter | None) -> None:
        position, group = _after(records), self._settings.group
        if poison is not None:
            await self._commit(len(records), Step((), [poison], None), position, task.generation)
        else:
            started = time.monotonic()
            with self._span(records):
                step = task.derive(records)
                self.pace.note(len(records), time.monotonic() - started)
                await self._commit(len(records), step, position, task.generation)
                task.apply(step.state)
            metrics.BATCH_RECORDS.labels(group).observe(len(records))
            metrics.BATCH_SECONDS.labels(group).observe(time.monotonic() - started)
        metrics.HANDLED_RECORDS.labels(group, self._partition.topic).inc(len(records))

    async def _past(
        self,
        task: ReplayingTask[Any],
        live: int,
        last: int | None,
        records: Records,
        poison: DeadLetter | None,
    ) -> None:
        """`last` is the offset that ends the past, None where no record does."""
        reached = live if (records[-1].offset if records else None) == last else None
        with self._span(records):
            step = task.derive_past(() if poison else records, reached)
            dead = [*step.dead, poison] if poison else step.dead
            told = Step(step.outputs, dead, step.state)
            # live poison must stay as conspicuous as it is without a replay: calm history does not count
            await self._commit(len(records) if dead else 0, told, live, step.generation or task.generation)
            task.apply(step.state)
        metrics.REPLAYED_RECORDS.labels(self._settings.group, self._partition.topic).inc(len(records))

    async def _commit(self, records: int, step: Step[Any], position: int, generation: str) -> None:
        settings = self._settings
        settings.limit.check(records, step.dead)
        current = telemetry.traceparent()
        await self._writer.commit(
            step.outputs,
            position,
            generation,
            traceparent=current.encode() if current else None,
            untraced=[letter.output(settings.group) for letter in step.dead],
        )
        if records:
            settings.limit.count(records, step.dead)
        for letter in step.dead:
            metrics.REJECTED_RECORDS.labels(settings.group, self._partition.topic, letter.reason_code).inc()

    def _span(self, records: Records) -> AbstractContextManager[object]:
        if not records:
            return nullcontext()
        topic, partition = self._partition
        return telemetry.process_span(self._settings.group, topic, partition, records)


def _after(records: Records) -> int:
    return int(records[-1].offset) + 1
