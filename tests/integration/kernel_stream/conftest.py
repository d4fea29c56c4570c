"""A small stream to process: numbered records in, numbered records out, counted per partition."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.admin import ensure_topics
from everloop_kernel.errors import PermanentError
from everloop_kernel.exactly_once import identities
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream import DeadLetter, Output, RestoreFrom, Step, StreamProcessor, go_on


class CountingTask:
    """Publishes each record with its running number in the partition; restored from the output."""

    def __init__(self, stream: "Stream", partition: TopicPartition, generation: str) -> None:
        self.generation = generation
        self.count = 0
        self._stream = stream
        self._partition = partition.partition

    def restore_from(self) -> Sequence[RestoreFrom]:
        return [RestoreFrom(self._stream.output, self._partition, last=10)]

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        self.count = int(records[-1].value.partition(b"#")[2])

    def begin(self, beginning: int, committed: int | None) -> int:
        return go_on(beginning, committed)

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[int]:
        outputs, dead, count = [], [], self.count
        for record in records:
            if record.value.startswith(b"poison"):
                dead.append(DeadLetter(record, "poison", "it says so"))
                continue
            if record.value.startswith(b"bomb"):
                raise PermanentError("bomb", "the whole batch fails")
            count += 1
            value = b"%s#%d" % (record.value, count)
            outputs.append(Output(self._stream.output, self._partition, record.key, value, record.headers))
        return Step(outputs, dead, count)

    def apply(self, state: int) -> None:
        self.count = state


@dataclass
class Stream:
    """Topics, a group, and processors over them."""

    kafka: KafkaSettings
    name: str
    partitions: int = 2
    generation: str = "1"
    tasks: dict[TopicPartition, CountingTask] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.topic = f"{self.name}.in"
        self.output = f"{self.name}-out"
        self.group = self.name
        self.dlq = f"{self.group}-dlq"

    async def create(self) -> None:
        inbound, output = {"max.message.bytes": "2097152"}, {"max.message.bytes": "1000000"}
        topics = {self.topic: (self.partitions, inbound), self.output: (self.partitions, output)}
        await ensure_topics(self.kafka, {**topics, self.dlq: (1, {"max.message.bytes": "3145728"})})

    async def open_task(self, partition: TopicPartition) -> CountingTask:
        task = self.tasks[partition] = CountingTask(self, partition, self.generation)
        return task

    def processor(self, kind: type[StreamProcessor] = StreamProcessor, **options: Any) -> StreamProcessor:
        arguments: dict[str, Any] = {
            "kafka": self.kafka,
            "platform": PlatformSettings(max_backoff_seconds=3.0),
            "group": self.group,
            "pattern": rf"^{self.name}\.[a-z0-9-]+$",
            "open_task": self.open_task,
            "max_records": 100,
        }
        return kind(**{**arguments, **options})

    async def send(self, values: Sequence[str], topic: str | None = None, headers: Any = ()) -> None:
        """Publish round robin over the partitions."""
        async with _started(plain_producer(self.kafka)) as producer:
            for number, value in enumerate(values):
                await producer.send(
                    topic or self.topic,
                    value.encode(),
                    b"k",
                    partition=number % self.partitions,
                    headers=list(headers),
                )
            await producer.flush()

    async def numbered(self) -> list[str]:
        """`value#running number` of everything that came out."""
        return await identities(self.kafka, self.output, lambda record: record.value.decode())

    async def came_out(self) -> list[str]:
        return [each.partition("#")[0] for each in await self.numbered()]

    async def dead(self) -> list[str]:
        return await identities(self.kafka, self.dlq, lambda record: record.value.decode())

    def numbering(self, values: Sequence[str]) -> list[str]:
        """What `numbered` gives when each of `values`, sent at once, was counted exactly once."""
        parts = [values[number :: self.partitions] for number in range(self.partitions)]
        return [f"{value}#{count}" for part in parts for count, value in enumerate(part, start=1)]


@asynccontextmanager
async def _started(client: Any) -> AsyncIterator[Any]:
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@asynccontextmanager
async def _running(*processors: StreamProcessor) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(processor.run()) for processor in processors]
    try:
        yield tasks
    finally:
        for processor in processors:
            processor.stop()
        done, late = await asyncio.wait(tasks, timeout=20)
        for task in late:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for task in done:
            task.exception()


@pytest.fixture
def running():
    """`async with running(processor) as tasks`: run processors, stop them afterwards."""
    return _running


@pytest.fixture
def until():
    """`await until(condition)`: wait for an async or plain condition; False when it does not come in time."""

    async def wait(condition: Callable[[], Any], seconds: float = 15.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return True
            await asyncio.sleep(0.05)
        return False

    return wait


@pytest.fixture
def settings(kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, session_timeout_ms=6000)


@pytest.fixture
async def stream(settings: KafkaSettings, unique) -> Stream:
    """An empty stream with topics of its own."""
    found = Stream(settings, unique("stream"))
    await found.create()
    return found
