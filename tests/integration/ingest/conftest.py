"""Ingest as a process on a broker of its own (its consumer group has one name, so tests cannot share it)."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from everloop.embedded import Kafka
from everloop.embedded.ports import free_port
from everloop_kernel.admin import ensure_topics
from everloop_kernel.exactly_once import identities
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.canonical import dumps
from everloop_schemas.cloudevents import encode
from everloop_schemas.events import PipelineDefined
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import Pipeline, load, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

PIPELINE = """
pipeline: NAME
partition_by: [origin]
observation:
  event_time: scheduled_departure
  replay_sources: [history]
  notify_every: 50
  fields:
    origin: {type: category, values: [EWR, JFK, LGA]}
    carrier: {type: category}
    distance: {type: number, unit: mi, min: 0, max: 6000}
    wind: {type: number, nullable: true}
label:
  type: binary
  fields: {arrival_delay: {type: integer, unit: min}}
  value: {late: arrival_delay > 15}
"""


def observation(number: int, **changes: Any) -> dict[str, Any]:
    record = {
        "id": f"o{number}",
        "scheduled_departure": "2026-01-01T05:15:00Z",
        "origin": ("EWR", "JFK", "LGA")[number % 3],
        "carrier": "UA",
        "distance": 1400,
        "wind": None,
    }
    return {**record, **changes}


def label(number: int, **changes: Any) -> dict[str, Any]:
    record = {
        "id": f"o{number}",
        "event_time": "2026-01-01T09:00:00Z",
        "origin": ("EWR", "JFK", "LGA")[number % 3],
        "arrival_delay": 22,
    }
    return {**record, **changes}


@dataclass
class Ingest:
    """The process, and a look at what it writes."""

    bootstrap: str
    port: int
    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    extra: dict[str, str] = field(default_factory=dict)
    settings: KafkaSettings | None = None
    """How a test reaches the broker, where that takes more than its address."""

    @property
    def kafka(self) -> KafkaSettings:
        return self.settings or KafkaSettings(bootstrap_servers=self.bootstrap)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        with (self.folder / "ingest.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "everloop_ingest"],
                env={**self.environment, **self.extra},
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert self.process is None or self.process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError(f"ingest is not ready:\n{self.log()}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log(self) -> str:
        return (self.folder / "ingest.log").read_text()[-3000:]

    async def define(self, name: str, text: str = PIPELINE) -> Pipeline:
        """What the registry does: topics, then the definition."""
        pipeline = load(text.replace("NAME", name))
        assert isinstance(pipeline, Pipeline), pipeline
        await ensure_topics(self.kafka, pipeline_topics(name, pipeline.partitions))
        definition = to_definition(pipeline)
        event = PipelineDefined(
            pipeline=name,
            version=1,
            definition=definition,
            sha256="0" * 64,
            partitions=pipeline.partitions,
            defined_at=datetime.now(UTC),
            defined_by="test",
        )
        value, headers = encode(event, id=f"{name}-{len(dumps(definition))}", source="test")
        await self.produce(PipelineDefined.topic, [(0, name.encode(), value, headers)])
        await self.known(name)
        return pipeline

    async def known(self, name: str) -> None:
        async with httpx.AsyncClient(base_url=self.url) as client:
            for _ in range(100):
                answer = await client.post(f"/v1/pipelines/{name}/labels", json=[])
                if answer.status_code == 400:
                    return
                await asyncio.sleep(0.1)
        raise AssertionError(f"ingest does not know {name}: {answer.status_code} {answer.text}")

    async def produce(
        self, topic: str, records: Sequence[tuple[int, bytes | None, bytes | None, Any]]
    ) -> None:
        async with plain_producer(self.kafka) as producer:
            for partition, key, value, headers in records:
                batch = producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=list(headers))
                await (await producer.send_batch(batch, topic, partition=partition))

    async def produce_records(
        self, name: str, records: Sequence[dict[str, Any]], headers: Any = (), *, partitions: int = 4
    ) -> None:
        """As a producer with the right hash would: on the partition of the key."""
        keyed = [(key_bytes([record.get("origin")]), record) for record in records]
        await self.produce(
            f"producer-record-published-v1.{name}",
            [(partition_of(key, partitions), key, dumps(record), headers) for key, record in keyed],
        )

    async def logged(self, name: str) -> list[dict[str, Any]]:
        values = await identities(
            self.kafka, f"ingest-record-accepted-v1.{name}", lambda record: record.value.decode()
        )
        return [json.loads(value) for value in values]

    async def quarantined(self, name: str) -> list[dict[str, Any]]:
        values = await identities(
            self.kafka, f"ingest-record-quarantined-v1.{name}", lambda record: record.value.decode()
        )
        return [json.loads(value) for value in values]

    async def ids(self, name: str) -> Counter[str]:
        return Counter(f"{entry['kind']}-{entry['id']}" for entry in await self.logged(name))

    async def read(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(value) for value in await identities(self.kafka, topic, _text)]

    async def dead(self) -> list[dict[str, str]]:
        texts = await identities(self.kafka, "everloop-ingest-dlq", _headers)
        return [json.loads(text) for text in texts]


def _text(record: Any) -> str:
    return record.value.decode()


def _headers(record: Any) -> str:
    value = base64.b64encode(record.value or b"").decode()
    return json.dumps({"value": value, **{name: (text or b"").decode() for name, text in record.headers}})


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("ingest") / "kafka", port=0) as found:
        yield found


@pytest.fixture(scope="module")
def topics(broker: Kafka) -> None:
    settings = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    asyncio.run(ensure_topics(settings, platform_topics()))


@pytest.fixture
def ingest_on(tmp_path: Path) -> Iterator[Callable[[Kafka], Ingest]]:
    """Ingest on a broker, not yet started; stopped after the test."""
    made: list[Ingest] = []

    def make(broker: Kafka) -> Ingest:
        made.append(ingest_in(tmp_path, broker))
        return made[-1]

    yield make
    for found in made:
        if found.process is not None and found.process.poll() is None:
            found.end()  # leaving the group: the next member need not wait for a dead one's session


def ingest_in(folder: Path, broker: Kafka) -> Ingest:
    port = free_port()
    environment = {
        **os.environ,
        "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "EVERLOOP_KAFKA_SESSION_TIMEOUT_MS": "6000",
        "EVERLOOP_INGEST_HTTP_PORT": str(port),
        "EVERLOOP_DATA_DIR": str(folder),
        "EVERLOOP_LOG_FORMAT": "console",
    }
    return Ingest(broker.bootstrap_servers, port, folder, environment)


@pytest.fixture(scope="module")
def lasting_ingest(broker: Kafka, topics, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingest]:
    """Ingest, ready, for all tests of a module: none of them may stop it."""
    found = ingest_in(tmp_path_factory.mktemp("lasting-ingest"), broker)
    found.start()
    yield found
    found.end()


@pytest.fixture
def stopped_ingest(broker: Kafka, topics, ingest_on) -> Ingest:
    return ingest_on(broker)


@pytest.fixture
def ingest(stopped_ingest: Ingest) -> Ingest:
    """Ingest, ready."""
    stopped_ingest.start()
    return stopped_ingest


@pytest.fixture
def until():
    """`await until(condition, seconds)`: wait for an async condition, which then holds."""

    async def wait(condition: Any, seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if await condition():
                return True
            await asyncio.sleep(0.1)
        return False

    return wait


@pytest.fixture
def records():
    """`records.observation(3, wind=2)`, `records.label(3)`, `records.PIPELINE`."""

    class Records:
        PIPELINE = PIPELINE

    Records.observation, Records.label = staticmethod(observation), staticmethod(label)
    return Records
