"""A partition's past, read beside its live records and handed to the lane slice by slice."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import close_quietly
from everloop_kernel.kafka_reading import started_reader
from everloop_kernel.kafka_records import deliver_records
from everloop_kernel.stream_task import LaneSettings

__all__ = ["Replay", "Slice"]

_SLICE_CPU_SECONDS = 0.01
"""What one transaction of a replay is to take of the processor: so long nothing else of the process runs."""
_FIRST_RECORDS, _FEWEST_RECORDS = 200, 50
_POLL_MS = 500


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of the past in order, the offset below which there are no more, and whether nothing follows."""

    records: Sequence[ConsumerRecord]
    position: int
    is_last: bool = False


class Replay:
    """Reads one slice ahead, by a reader of its own: the group's position stays where live records are.

    The lane is woken when a slice may be handled, takes it, and says when it has been. A transaction with the
    slice belongs to the partition's one producer, so it is the lane that makes it, between live batches.
    """

    def __init__(self, partition: TopicPartition, settings: LaneSettings, wake: Callable[[], None]) -> None:
        self._partition = partition
        self._kafka = settings.kafka
        self._throttle = settings.throttle
        self._most = settings.max_records
        self._records = min(_FIRST_RECORDS, self._most)
        self._wake = wake
        self._reading: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._slice: Slice | None = None
        self._handled = asyncio.Event()
        self._taken_at = self._cpu_at = 0.0

    @property
    def is_running(self) -> bool:
        """Whether slices are still to come."""
        return self._reading is not None

    @property
    def is_ready(self) -> bool:
        """Whether a slice can be taken; or reading has failed, which `take` raises."""
        return self._slice is not None or (self._reading is not None and self._reading.done())

    def start(self, offset: int, live: int) -> None:
        """Read from `offset` on; nothing is read where the past ends there, at the live position."""
        reading = self._read(offset) if offset < live else self._hand_over(Slice((), live, is_last=True))
        self._reading = asyncio.create_task(reading)
        self._reading.add_done_callback(lambda _: self._wake())

    def take(self) -> Slice | None:
        """The slice that is due, None if there is none. Raises what has ended the reading."""
        found, self._slice = self._slice, None
        if found is None and self._reading is not None and self._reading.done():
            self._reading.result()
        self._taken_at, self._cpu_at = time.monotonic(), time.thread_time()
        return found

    def handled(self) -> None:
        """The slice is committed: the rest goes by the time since it was taken, the next size by its work.

        The wait for the broker is part of the first alone: it is the same for small slices and large ones.
        """
        self._throttle.spent(time.monotonic() - self._taken_at)
        fitting = round(self._records * _SLICE_CPU_SECONDS / max(time.thread_time() - self._cpu_at, 1e-3))
        self._records = min(max(fitting, self._records // 2, _FEWEST_RECORDS), 2 * self._records, self._most)
        self._handled.set()

    def give_up(self) -> None:
        """Read no more, at once; a slice that was not handled is read again by whoever goes on."""
        reading, self._reading, self._slice = self._reading, None, None
        if reading is not None:
            self._ending.add(reading)
            reading.add_done_callback(self._ended)
            reading.cancel()

    def _ended(self, reading: asyncio.Task[None]) -> None:
        self._ending.discard(reading)
        if not reading.cancelled():
            reading.exception()

    async def close(self) -> None:
        """Give up, and wait until the reader is gone."""
        self.give_up()
        if self._ending:
            await asyncio.wait(self._ending)

    async def _read(self, offset: int) -> None:
        async with self._throttle.place():
            consumer = await started_reader(self._kafka)
            try:
                deliver_records(consumer)
                consumer.assign([self._partition])
                consumer.seek(self._partition, offset)
                while True:
                    await self._hand_over(await self._next(consumer))
            finally:
                await close_quietly(consumer)

    async def _next(self, consumer: AIOKafkaConsumer) -> Slice:
        """The next records, or what is known once there are none for a moment: how far one has looked."""
        try:
            got = await consumer.getmany(self._partition, timeout_ms=_POLL_MS, max_records=self._records)
        except UnicodeDecodeError as error:  # as for live records, which have stopped there before
            raise EverloopError(
                f"{self._partition} has a header whose name is not UTF-8 ({error})"
            ) from error
        return Slice(got.get(self._partition, ()), await consumer.position(self._partition))

    async def _hand_over(self, found: Slice) -> None:
        async with self._throttle.turn():
            self._slice = found
            self._handled.clear()
            self._wake()
            await self._handled.wait()
