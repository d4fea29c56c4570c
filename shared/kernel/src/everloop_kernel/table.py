"""A compacted topic as a table in memory: read whole by every instance, then followed."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from tenacity import wait_exponential, wait_random

from everloop_kernel.errors import one_line
from everloop_kernel.kafka import close_quietly, retrying, set_fetch_wait
from everloop_kernel.kafka_reading import partitions_where, started_reader
from everloop_kernel.settings import KafkaSettings

__all__ = ["OnChange", "Table"]

log = logging.getLogger(__name__)

OnChange = Callable[[str, bytes, bytes | None, Sequence[tuple[str, bytes | None]]], None]
"""Called with topic, key, value (None: removed) and headers, in a partition's order; must take bad data."""

_DISCOVERY_SECONDS: Final = 3.0
_SETTLED_DISCOVERY_SECONDS: Final = 15.0
_POLL_MS: Final = 500
_FETCH_WAIT_MS: Final = 1000
_SETTLED_FETCH_WAIT_MS: Final = 2000
"""A fetch that waits keeps the questions about new topics waiting, so only where none are expected."""
_FETCH_BYTES: Final = 8 << 20
_PAGE_RECORDS: Final = 10_000


class Table:
    """Follows compacted topics, by name or by pattern, without a group; a component for `serve`.

    It goes on when the broker is away, however long, and says how old its contents are. A topic that matches
    the pattern later is found within seconds. Nothing is called twice after a broker's restart.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Sequence[str] = (),
        *,
        pattern: str | None = None,
        on_change: OnChange,
        name: str | None = None,
    ) -> None:
        self.name = name or f"table of {pattern or ', '.join(topics)}"
        self.caught_up = asyncio.Event()
        self._kafka = kafka
        self._topics = frozenset(topics)
        self._pattern = re.compile(pattern) if pattern else None
        self._on_change = on_change
        self._positions: dict[TopicPartition, int] = {}
        self._pending: dict[TopicPartition, int] = {}
        self._current_at: float | None = None
        self._stopping = asyncio.Event()

    async def wait_caught_up(self) -> None:
        """Return when everything that stood on the topics at the start has been read."""
        await self.caught_up.wait()

    def age_seconds(self) -> float | None:
        """For how long the contents may have been out of date; None before they were ever complete."""
        return None if self._current_at is None else max(0.0, time.monotonic() - self._current_at)

    def not_ready(self) -> str | None:
        """Ready once complete; an absent broker later on does not change that."""
        return None if self.caught_up.is_set() else "not read to its end yet"

    def stop(self) -> None:
        """Return from `run`."""
        self._stopping.set()

    async def run(self) -> None:
        """Read and follow until `stop`; a broker that cannot be reached is tried again for ever."""
        while not self._stopping.is_set():
            try:
                await self._follow()
            except (KafkaError, OSError) as error:
                log.warning("%s lost the broker: %s", self.name, one_line(error))
                await self._pause(1.0)

    async def _follow(self) -> None:
        """One consumer's life: from its start to `stop` or an error."""
        consumer = await self._connected()
        if consumer is None:
            return
        try:
            due = 0.0
            while not self._stopping.is_set():
                if time.monotonic() > due:
                    await self._discover(consumer)
                    self._note_complete(consumer)  # an empty topic has nothing to wait for
                    due = time.monotonic() + self._rest(consumer)
                await self._read(consumer)
        finally:
            await close_quietly(consumer, seconds=2.0)

    async def _connected(self) -> AIOKafkaConsumer | None:
        """A started consumer; None when asked to stop meanwhile."""
        retry = retrying(
            0,
            stop=lambda _: self._stopping.is_set(),
            wait=wait_exponential(0.2, max=5) + wait_random(0, 0.2),
            retry_error_callback=lambda _: None,
            sleep=self._pause,
        )
        found: AIOKafkaConsumer | None = await retry(
            started_reader,
            self._kafka,
            max_partition_fetch_bytes=_FETCH_BYTES,
        )
        return found

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _discover(self, consumer: AIOKafkaConsumer) -> None:
        """Assign every partition of every matching topic; known ones go on where they were."""
        found = await partitions_where(consumer, self._wants)
        if found == consumer.assignment():
            return
        ends: Mapping[TopicPartition, int] = await consumer.end_offsets(list(found))
        begins: Mapping[TopicPartition, int] = await consumer.beginning_offsets(list(found))
        consumer.assign(list(found))
        self._pending = {each: end for each, end in self._pending.items() if each in found}
        for partition in found:
            position = self._positions.get(partition, 0)
            if not begins[partition] <= position <= ends[partition]:
                position = begins[partition]  # the topic was made anew, or its beginning was compacted away
            self._pending.setdefault(partition, ends[partition])
            self._positions[partition] = position
            consumer.seek(partition, position)

    def _rest(self, consumer: AIOKafkaConsumer) -> float:
        """Look often while a topic may appear; when all are there, only partitions can be added."""
        settled = self._pattern is None and self._topics <= {each.topic for each in consumer.assignment()}
        set_fetch_wait(consumer, _SETTLED_FETCH_WAIT_MS if settled else _FETCH_WAIT_MS)
        return _SETTLED_DISCOVERY_SECONDS if settled else _DISCOVERY_SECONDS

    def _wants(self, topic: str) -> bool:
        return topic in self._topics or (self._pattern is not None and bool(self._pattern.match(topic)))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """One poll: apply what came, then see whether this is all there is."""
        if not consumer.assignment():
            await self._pause(_POLL_MS / 1000)
            self._note_complete(consumer)
            return
        got: Mapping[TopicPartition, Sequence[ConsumerRecord]]
        got = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_PAGE_RECORDS)
        for records in got.values():
            for record in records:
                if record.key is not None:
                    self._on_change(record.topic, record.key, record.value, record.headers)
        for partition in consumer.assignment():
            self._positions[partition] = await consumer.position(partition)
        self._note_complete(consumer)

    def _note_complete(self, consumer: AIOKafkaConsumer) -> None:
        """Complete: past every end seen at the discovery. Current: as of the oldest answer of the broker."""
        for partition in [each for each, end in self._pending.items() if self._positions[each] >= end]:
            del self._pending[partition]
        if self._pending or not self._topics <= {each.topic for each in consumer.assignment()}:
            return
        self.caught_up.set()
        answered = [self._answered(consumer, partition) for partition in consumer.assignment()]
        if None not in answered:
            newest = min((each for each in answered if each is not None), default=time.time())
            self._current_at = time.monotonic() - max(0.0, time.time() - newest)

    def _answered(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> float | None:
        """When (epoch s) the broker last said that there is nothing more; None while there is."""
        end, polled = consumer.last_stable_offset(partition), consumer.last_poll_timestamp(partition)
        if end is None or polled is None or self._positions[partition] < end:
            return None
        return float(polled) / 1000
