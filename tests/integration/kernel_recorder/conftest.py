"""A service made for one test: its own schema, groups and topics, and the same parts as a real one."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from everloop_kernel import recorder
from everloop_kernel.kafka import admin_client, plain_producer, reading_consumer
from everloop_kernel.recorder import Message, OutboxRelay, Recorder, Subscription, Transaction, open_pool
from everloop_kernel.settings import KafkaSettings, PlatformSettings, PostgresSettings

PROCESS = Path(__file__).with_name("recording_process.py")
KERNEL_FILES = Path(recorder.__file__).with_name("migrations")
SCHEMA = """
CREATE TABLE applied (topic text, partition int, kafka_offset bigint, value bytea, pid int);
CREATE TABLE strict (number int);
"""
Header = tuple[str, bytes | None]


@dataclass
class Bench:
    """One test's service, and what it needs to look at it from outside."""

    service: str
    group: str
    source: str
    target: str
    kafka: KafkaSettings
    postgres: PostgresSettings
    pool: Any
    producer: Any
    platform: PlatformSettings = field(default_factory=lambda: PlatformSettings(max_backoff_seconds=3))

    @property
    def partitions(self) -> dict[str, int]:
        return {self.source: 4, self.target: 2, self.dead: 1}

    @property
    def dead(self) -> str:
        return f"{self.group}-dlq"

    def recorder(self, handler: Any, **options: Any) -> Recorder:
        wanted = Subscription(self.group, [self.source], handler=handler, **options)
        return Recorder(self.service, self.kafka, self.pool, self.platform, [wanted])

    def relay(self) -> OutboxRelay:
        return OutboxRelay(self.service, self.kafka, self.pool, self.platform, marker=self.dead)

    async def send(self, values: Sequence[bytes | None], headers: Sequence[Header] = ()) -> None:
        """Spread values over the source's partitions, in order; batches take a null key and value."""
        batches = [self.producer.create_batch() for _ in range(4)]
        for number, value in enumerate(values):
            added = batches[number % 4].append(timestamp=None, key=None, value=value, headers=list(headers))
            assert added is not None, "send less at once"
        for number, batch in enumerate(batches):
            await (await self.producer.send_batch(batch, self.source, partition=number))

    async def applied(self) -> list[bytes | None]:
        """The values that the handler has recorded."""
        return [row["value"] for row in await self.pool.fetch("SELECT value FROM applied")]

    async def offsets(self) -> dict[int, int]:
        rows = await self.pool.fetch(
            "SELECT partition, next FROM consumer_offsets WHERE topic = $1", self.source
        )
        return {row["partition"]: row["next"] for row in rows}

    async def read(self, topic: str) -> list[Any]:
        """All committed records of a topic, as they are now."""
        consumer = reading_consumer(self.kafka)
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(self.partitions[topic])]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[Any] = []
            while any([await consumer.position(one) < ends[one] for one in partitions]):
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def spawn(self, *flags: str) -> "Child":
        """Start the service as a process of its own."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROCESS),
            json.dumps(
                {"service": self.service, "group": self.group, "source": self.source, "target": self.target}
            ),
            *flags,
            env={
                **os.environ,
                "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
                "EVERLOOP_KAFKA_SESSION_TIMEOUT_MS": "6000",
                "EVERLOOP_POSTGRES_DSN": self.postgres.dsn,
                "EVERLOOP_MAX_BACKOFF_SECONDS": "3",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return Child(child)


class Child:
    """A spawned service."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self._lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self._process.stdout:
            self._lines.append(line.decode())

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.returncode

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def ended(self, seconds: float = 30) -> int:
        async with asyncio.timeout(seconds):
            await self._process.wait()
            await self._reading
        return self._process.returncode

    async def kill(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        await self.ended()


async def _create_topics(kafka: KafkaSettings, topics: dict[str, int]) -> None:
    admin = admin_client(kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, count, 1) for name, count in topics.items()])
    finally:
        await admin.close()


@pytest.fixture
async def bench(kafka, postgres, unique: Callable[[str], str]) -> AsyncIterator[Bench]:
    async with made(kafka.bootstrap_servers, postgres.dsn, unique) as bench:
        yield bench


@pytest.fixture
async def bench_on_own_kafka(own_kafka, postgres, unique: Callable[[str], str]) -> AsyncIterator[Bench]:
    """A bench whose broker the test may kill."""
    async with made(own_kafka.bootstrap_servers, postgres.dsn, unique) as bench:
        yield bench


@contextlib.asynccontextmanager
async def made(bootstrap_servers: str, dsn: str, unique: Callable[[str], str]) -> AsyncIterator[Bench]:
    service = unique("svc").replace("-", "_")
    kafka, postgres = KafkaSettings(bootstrap_servers=bootstrap_servers), PostgresSettings(dsn=dsn)
    pool = await open_pool(postgres, service)
    await pool.execute(f"CREATE SCHEMA {service}")
    for script in (*(file.read_text() for file in sorted(KERNEL_FILES.glob("*.sql"))), SCHEMA):
        await pool.execute(script)
    producer = plain_producer(kafka)
    await producer.start()
    names = (unique("group"), unique("source"), unique("target"))
    bench = Bench(service, *names, kafka, postgres, pool, producer)
    await _create_topics(kafka, bench.partitions)
    yield bench
    await producer.stop()
    pool.terminate()


@pytest.fixture
def new_topic(bench: Bench) -> Callable[[str], Awaitable[str]]:
    async def create(name: str) -> str:
        await _create_topics(bench.kafka, {name: 1})
        return name

    return create


@contextlib.asynccontextmanager
async def running(*components: Any) -> AsyncIterator[None]:
    """Run components beside the test; a failure of theirs is the test's."""
    tasks = [asyncio.create_task(component.run()) for component in components]
    try:
        yield
    finally:
        for component in components:
            component.stop()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)


@pytest.fixture(name="running")
def _running() -> Any:
    return running


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    async def wait(condition: Callable[[], Awaitable[bool]], seconds: float = 30, why: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not await condition():
            assert time.monotonic() < deadline, why or "it did not happen in time"
            await asyncio.sleep(0.05)

    return wait


@pytest.fixture
def record() -> Any:
    """A handler that records values as they are."""
    return record_values


async def record_values(messages: Sequence[Message], work: Transaction) -> None:
    rows = [(m.topic, m.partition, m.offset, m.value, os.getpid()) for m in messages]
    await work.connection.executemany("INSERT INTO applied VALUES ($1, $2, $3, $4, $5)", rows)
