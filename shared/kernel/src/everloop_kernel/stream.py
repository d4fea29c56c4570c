"""Pattern 1: consume a batch, derive, publish results and offset in one Kafka transaction.

Each assigned partition is a `Lane` of its own with a transactional producer of its own, so partitions are
fenced one by one and a hundred small topics cost little: a lane opens at its first record, closes when idle.

    processor = StreamProcessor(
        kafka=kafka, platform=platform, group="everloop-feature",
        pattern=r"^ingest-record-accepted-v1[.][a-z0-9-]+$", open_task=open_task,
    )
"""

import asyncio
import logging
from collections.abc import Awaitable, Collection, Coroutine
from typing import Any, Final

from aiokafka import ConsumerRebalanceListener, TopicPartition

from everloop_kernel import metrics
from everloop_kernel.dead_letters import DeadLetter, DeadLetterLimit, dead_letter_topic
from everloop_kernel.errors import EverloopError, Fenced
from everloop_kernel.kafka import retrying
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream_lane import Lane
from everloop_kernel.stream_source import Source
from everloop_kernel.stream_task import (
    LaneSettings,
    OpenTask,
    PartitionTask,
    ReplayingTask,
    RestoreFrom,
    Step,
    go_on,
)
from everloop_kernel.stream_throttle import Throttle
from everloop_kernel.stream_writer import Output

__all__ = [
    "DeadLetter",
    "Output",
    "PartitionTask",
    "ReplayingTask",
    "RestoreFrom",
    "Step",
    "StreamProcessor",
    "dead_letter_topic",
    "go_on",
]

log = logging.getLogger(__name__)

_LAG_SECONDS: Final = 5.0
_DRAIN_SECONDS: Final = 15.0


class StreamProcessor:
    """A member of `group` over every topic that matches `pattern`; a component for `serve`.

    `open_task` gives the task of a partition; it may wait, but should not be slow: it is asked for each
    assigned partition. `max_records` bounds a transaction; a smaller backlog makes a smaller one.
    `replay_share` is the part of the process's time that replays beside live records may take.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        platform: PlatformSettings,
        group: str,
        pattern: str,
        open_task: OpenTask,
        max_records: int = 4000,
        idle_seconds: float = 30.0,
        replay_share: float = 0.5,
    ) -> None:
        self.name = group
        self._pattern = pattern
        self._settings = LaneSettings(
            kafka=kafka,
            group=group,
            open_task=open_task,
            limit=DeadLetterLimit(group, platform),
            max_records=max_records,
            longest_rest_seconds=platform.commit_interval_ms / 1000,
            max_backoff_seconds=platform.max_backoff_seconds,
            idle_seconds=idle_seconds,
            throttle=Throttle(replay_share),
        )
        self._lanes: dict[TopicPartition, Lane] = {}
        self._running: dict[TopicPartition, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._assigned: frozenset[TopicPartition] | None = None
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._ending = asyncio.Event()
        self._source: Source | None = None

    async def run(self) -> None:
        """Work until `stop`; raises what a lane could not get over."""
        try:
            source: Source = await retrying(self._settings.max_backoff_seconds)(self._join)
            self._spawn(self._pump(source))
            self._spawn(self._report_lag(source))
            await self._ending.wait()
            if self._failure is None:
                await self._drain()
            if self._failure is not None:
                raise self._failure
        finally:
            await self._close()

    def stop(self) -> None:
        """Finish the batches in flight, leave the group and return from `run`."""
        self._stopping.set()
        self._ending.set()

    def not_ready(self) -> str | None:
        """Ready once the group has given this member its share (which may be none) and the broker answers."""
        if self._assigned is None or self._source is None:
            return f"{self.name} has not been assigned its partitions yet"
        return self._source.silence(self._assigned)

    def reopen(self, topic: str) -> None:
        """Open the topic's tasks anew, because what they compute has changed; a new topic is looked for."""
        if self._source is not None:
            self._source.look_for(topic)
        for partition in self._assigned or ():
            if partition.topic == topic:
                self._lane(partition).reopen()
                self._start(partition)

    async def _join(self) -> Source:
        source = self._source = Source(self._settings.kafka, self.name, self._pattern)
        try:
            await source.start(_Listener(self))
        except BaseException:
            self._source = None
            await source.close()
            raise
        return source

    async def _pump(self, source: Source) -> None:
        """Hand what the broker delivers to the lanes at once."""
        while not self._stopping.is_set():
            busy = any(len(lane.backlog) for lane in self._lanes.values())
            for partition, records in (await source.poll(busy=busy)).items():
                self._lane(partition).put(records)
                self._start(partition)

    def _lane(self, partition: TopicPartition) -> Lane:
        if partition not in self._lanes:
            assert self._source is not None
            self._lanes[partition] = Lane(partition, self._source, self._settings)
        return self._lanes[partition]

    def _start(self, partition: TopicPartition) -> None:
        """Run the partition's lane, unless it runs."""
        if partition not in self._running and not self._stopping.is_set():
            task = self._running[partition] = self._spawn(self._lane(partition).run())
            task.add_done_callback(lambda done: self._ended(partition, done))

    def _ended(self, partition: TopicPartition, task: asyncio.Task[None]) -> None:
        """A lane closed itself; records that came meanwhile start it again."""
        if self._running.get(partition) is not task:
            return
        del self._running[partition]
        lane = self._lanes.get(partition)
        if lane is not None and len(lane.backlog) and self._failure is None:
            self._start(partition)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A background task whose failure ends `run`."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._collect)
        return task

    def _collect(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End `run` with the first error."""
        if self._failure is None:
            self._failure = error
        self._ending.set()

    async def revoked(self) -> None:
        """Let the transactions in flight end, within a limit; begin none before the new assignment."""
        for lane in self._lanes.values():
            lane.hold()
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                for lane in list(self._lanes.values()):
                    await lane.quiet()
        except TimeoutError as error:
            raise Fenced(
                f"{self.name}: a transaction outlasted {_DRAIN_SECONDS:.0f} s of a rebalance"
            ) from error

    async def assigned(self, partitions: Collection[TopicPartition]) -> None:
        """Go on with the partitions that stayed, drop those that went, look at those that came."""
        metrics.REBALANCES.labels(self.name).inc()
        self._assigned = frozenset(partitions)
        for gone in self._lanes.keys() - self._assigned:
            self._drop(gone)
        for lane in self._lanes.values():
            lane.release()
        self._spawn(self._open_changed(self._assigned - self._lanes.keys()))

    def _drop(self, partition: TopicPartition) -> None:
        lane = self._lanes.pop(partition)
        running = self._running.pop(partition, None)
        if running is not None:
            running.cancel()
        labels = (self.name, partition.topic, str(partition.partition))
        metrics.CONSUMER_LAG.labels(*labels)
        metrics.CONSUMER_LAG.remove(*labels)
        self._spawn(lane.close())

    async def _open_changed(self, partitions: Collection[TopicPartition]) -> None:
        """Open lanes that must replay although no record arrives: their task's generation has changed."""
        await retrying(self._settings.max_backoff_seconds)(self._compare_generations, partitions)

    async def _compare_generations(self, partitions: Collection[TopicPartition]) -> None:
        assert self._source is not None
        committed = await self._source.committed(partitions)
        for partition, (_, generation) in committed.items():
            task = await self._settings.open_task(partition)
            if task.generation != generation and partition in (self._assigned or ()):
                self._start(partition)

    async def _report_lag(self, source: Source) -> None:
        while True:
            for partition in self._assigned or ():
                lane = self._lanes.get(partition)
                backlog = len(lane.backlog) if lane else 0
                end, position = source.end(partition), source.position(partition)
                if end is not None and position is not None:
                    labels = (self.name, partition.topic, str(partition.partition))
                    metrics.CONSUMER_LAG.labels(*labels).set(max(0, end - position) + backlog)
            await asyncio.sleep(_LAG_SECONDS)

    async def _drain(self) -> None:
        """Let the batches in flight end."""
        for lane in self._lanes.values():
            lane.stop()
        if running := list(self._running.values()):
            _, late = await asyncio.wait(running, timeout=_DRAIN_SECONDS)
            if late:
                raise EverloopError(f"{self.name}: {len(late)} batches did not end in {_DRAIN_SECONDS:.0f} s")

    async def _close(self) -> None:
        self._stopping.set()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        if self._source is not None:
            await self._source.close()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """aiokafka swallows what a listener raises: whatever fails here must end the process instead."""

    def __init__(self, processor: StreamProcessor) -> None:
        self._processor = processor

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        del revoked  # the eager protocol revokes everything
        await self._guarded(self._processor.revoked())

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        await self._guarded(self._processor.assigned(assigned))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  (passed on, not swallowed)
            self._processor.fail(error)
