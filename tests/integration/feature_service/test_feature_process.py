"""The feature service as a process on a real Kafka: killed, changed, and still every vector exactly once."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from everloop.embedded import Kafka
from everloop_features import Compiled, decode, derive, microseconds, replay
from everloop_features import compile as compile_features
from everloop_features.packing import DEFINITION
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import (
    ArtifactRef,
    DeploymentChanged,
    Event,
    ModelRef,
    PipelineDefined,
    VectorComputed,
)
from everloop_schemas.pipeline import Pipeline, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

pytestmark = pytest.mark.integration

PARTITIONS = 2
RECORDS = 3_000
START = datetime(2020, 1, 1, tzinfo=UTC)


def pipeline(name: str, **features: str) -> Pipeline:
    return Pipeline.model_validate(
        {
            "pipeline": name,
            "partition_by": ["shop"],
            "partitions": PARTITIONS,
            "observation": {
                "event_time": "at",
                "fields": {
                    "shop": {"type": "category"},
                    "kind": {"type": "category"},
                    "size": {"type": "number", "nullable": True},
                },
            },
            "label": {
                "type": "binary",
                "fields": {"gain": {"type": "number"}},
                "value": {"won": "gain > 0"},
                "expected_after": "1h",
            },
            "features": {
                "kind": "kind",
                "third": "size / 3",
                "n": "count(window='1h', by=[shop])",
                "mean_size": "mean(size, window='1d', by=[shop, kind])",
                "rate": "mean(won, window='7d', by=[shop, kind], over=labels)",
                **features,
            },
        }
    )


def compiled(definition: Pipeline) -> Compiled:
    result = compile_features(definition)
    assert isinstance(result, Compiled)
    return result


def log_of(partition: int, count: int) -> list[dict[str, Any]]:
    """Accepted records of one partition: labels follow their observations, some never, some records late."""
    chance = random.Random(partition)
    records = []
    for number in range(count):
        at = START + timedelta(minutes=number - chance.choice([0, 0, 0, 45]))
        times = {"event_time": at.isoformat(), "known_at": (START + timedelta(minutes=number)).isoformat()}
        shop = f"s{partition}-{chance.randrange(3)}"
        if number % 3 == 2:
            fields: dict[str, Any] = {"shop": shop, "gain": chance.uniform(-1, 1)}
            record_id = f"{partition}-{chance.randrange(number)}"
            records.append({"kind": "label", "id": record_id, **times, "fields": fields})
        else:
            size = chance.choice([None, chance.gauss(0, 100)])
            fields = {"shop": shop, "kind": chance.choice("xyz"), "size": size}
            records.append({"kind": "observation", "id": f"{partition}-{number}", **times, "fields": fields})
    return records


class Rig:
    """A pipeline on the broker: its topics, its log, and what the service makes of it."""

    def __init__(self, kafka: KafkaSettings, name: str) -> None:
        self.kafka = kafka
        self.name = name
        self.sent = dict.fromkeys(range(PARTITIONS), 0)
        self.logs = {partition: log_of(partition, RECORDS) for partition in range(PARTITIONS)}

    async def prepare(self, definition: Pipeline) -> None:
        await ensure_topics(self.kafka, {**platform_topics(), **pipeline_topics(self.name, PARTITIONS)})
        await self.define(definition, 1)

    async def define(self, definition: Pipeline, version: int) -> None:
        event = {
            "pipeline": self.name, "version": version, "definition": to_definition(definition),
            "sha256": "0" * 64, "partitions": PARTITIONS, "defined_at": START, "defined_by": "test",
        }  # fmt: skip
        await self._decide(PipelineDefined.model_validate(event))

    async def deploy(self, version: int) -> None:
        artifact = ArtifactRef(sha256="0" * 64, bytes=1, chunks=1)
        model = ModelRef(model_version=1, pipeline_version=version, artifact=artifact)
        event = DeploymentChanged(
            pipeline=self.name,
            revision=version,
            champion=model,
            reason="",
            changed_at=START,
            key_id="",
            signature="",
        )
        await self._decide(event)

    async def _decide(self, event: Event) -> None:
        value, headers = cloudevents.encode(event, id=str(time.monotonic()), source="test")
        async with producer(self.kafka) as client:
            await client.send_and_wait(event.topic, value, self.name.encode(), headers=headers)

    async def publish(self, count: int) -> None:
        """The next `count` records of each partition's log."""
        async with producer(self.kafka) as client:
            for partition, records in self.logs.items():
                first = self.sent[partition]
                for record in records[first : first + count]:
                    key = record["fields"]["shop"].encode()
                    topic = f"ingest-record-accepted-v1.{self.name}"
                    await client.send(topic, msgspec.json.encode(record), key, partition=partition)
                self.sent[partition] += count

    async def damage(self, values: dict[int, Any]) -> None:
        """Overwrite an entry of each partition's state."""
        topic = f"feature-state-changed-v1.{self.name}"
        async with producer(self.kafka) as client:
            for partition, records in (await self.read("feature-state-changed-v1")).items():
                key = next(record.key for record in records if b"observations" in record.key)
                value = msgspec.msgpack.encode(values[partition])
                await client.send_and_wait(topic, value, key, partition=partition)

    async def read(self, topic: str) -> dict[int, list[Any]]:
        return {
            partition: [
                record
                async for page in read_to_end(self.kafka, TopicPartition(f"{topic}.{self.name}", partition))
                for record in page
            ]
            for partition in range(PARTITIONS)
        }

    async def vectors(self, version: int) -> dict[int, list[tuple[int, str, bytes]]]:
        """(log offset, id, values as JSON) of each published vector of a version, by partition."""
        found: dict[int, list[tuple[int, str, bytes]]] = {}
        for partition, records in (await self.read("feature-vector-computed-v1")).items():
            events = [cloudevents.decode(VectorComputed, record.value, record.headers) for record in records]
            assert all(
                isinstance(event, VectorComputed) and event.log_partition == partition for event in events
            )
            found[partition] = [
                (event.log_offset, event.id, msgspec.json.encode(event.values))
                for event in events
                if isinstance(event, VectorComputed) and event.pipeline_version == version
            ]
        return found

    async def expected(self, definition: Pipeline) -> dict[int, list[tuple[int, str, bytes]]]:
        """The same from the log that is on the broker, by one evaluation from its beginning."""
        features = compiled(definition)
        return {
            partition: [
                (vector.offset, vector.id, msgspec.json.encode(vector.values))
                for vector in replay(features, [(record.offset, decode(record.value)) for record in records])
            ]
            for partition, records in (await self.read("ingest-record-accepted-v1")).items()
        }

    async def until_computed(self, version: int, seconds: float = 60) -> None:
        """Wait until the vectors of everything published are there."""
        wanted = {p: sum(r["kind"] == "observation" for r in self.logs[p][: self.sent[p]]) for p in self.logs}
        deadline = time.monotonic() + seconds
        while (got := await self._counts(version)) != wanted:
            assert all(count <= wanted[p] for p, count in got.items()), "a vector came twice"
            assert time.monotonic() < deadline, (got, wanted)
            await asyncio.sleep(0.3)

    async def _counts(self, version: int) -> dict[int, int]:
        return {partition: len(rows) for partition, rows in (await self.vectors(version)).items()}

    async def state(self) -> dict[bytes, bytes]:
        """The newest value of every key of the state topic."""
        table: dict[bytes, bytes] = {}
        for records in (await self.read("feature-state-changed-v1")).values():
            for record in records:
                table.pop(record.key, None)
                if record.value is not None:
                    table[record.key] = record.value
        return table


@asynccontextmanager
async def producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    client = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=5)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """A broker of this module alone: the group has a fixed name."""
    with Kafka(tmp_path_factory.mktemp("feature-kafka"), port=0) as running:
        yield KafkaSettings(bootstrap_servers=running.bootstrap_servers)


@contextmanager
def service(kafka: KafkaSettings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "EVERLOOP_FEATURE_HTTP_PORT": "0",
        "EVERLOOP_FEATURE_MAX_RECORDS": "500",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "everloop_feature"], env=environment, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_killed_again_and_again(broker: KafkaSettings, tmp_path: Path) -> None:
    """After any number of crashes each observation has one vector, bit for bit that of a calm evaluation."""
    rig, definition, chance = Rig(broker, "killed"), pipeline("killed"), random.Random(1)
    await rig.prepare(definition)
    for _ in range(4):
        await rig.publish(RECORDS // 4)
        with service(broker, tmp_path / "log"):
            await asyncio.sleep(chance.uniform(1.0, 3.0))
    with service(broker, tmp_path / "log") as running:
        await rig.until_computed(1)
        running.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.wait, 30) == 0, (tmp_path / "log").read_text()
    assert await rig.vectors(1) == await rig.expected(definition)
    await _serving_agrees(rig, definition, version=1)


async def test_state_that_cannot_be_read_is_computed_again(broker: KafkaSettings, tmp_path: Path) -> None:
    """An entry of a newer version, or a damaged one, must end neither in a crash loop nor in wrong data."""
    rig, definition, log = Rig(broker, "damaged"), pipeline("damaged"), tmp_path / "log"
    await rig.prepare(definition)
    await rig.publish(600)
    with service(broker, log):
        await rig.until_computed(1)
    await rig.damage({0: [9, [1], [1]], 1: [1, ["damaged"]]})
    await rig.publish(200)
    with service(broker, log) as running:
        await rig.until_computed(1)
        assert running.poll() is None, log.read_text()
    assert await rig.vectors(1) == await rig.expected(definition)
    await _serving_agrees(rig, definition, version=1)
    assert "Traceback" not in log.read_text()
    assert log.read_text().count("computed again from the log") >= PARTITIONS


async def _serving_agrees(rig: Rig, definition: Pipeline, version: int) -> None:
    """A vector computed from the state topic is the one that the stream would compute next."""
    features = compiled(definition)
    online = features.new_state(version)
    now = START + timedelta(minutes=RECORDS)
    for key, value in (await rig.state()).items():
        online.load(key, value)
    for partition, records in (await rig.read("ingest-record-accepted-v1")).items():
        stream = features.new_state(version).begin()
        list(derive(features, [(record.offset, decode(record.value)) for record in records], stream))
        for number in range(3):
            fields = {"shop": f"s{partition}-{number}", "kind": "x", "size": 1.0}
            streamed, served = (
                features.vector(fields, microseconds(now), state) for state in (stream, online)
            )
            assert msgspec.json.encode(served) == msgspec.json.encode(streamed)
            assert any(value not in (None, 0.0) for value in streamed[1:4])


async def test_a_changed_pipeline(broker: KafkaSettings, tmp_path: Path) -> None:
    """A new version replays the log; the deployed one stays fresh until no model needs it, then it goes."""
    old, new = pipeline("changed"), pipeline("changed", n="count(window='5m', by=[shop])")
    rig = Rig(broker, "changed")
    await rig.prepare(old)
    await rig.publish(1_000)
    with service(broker, tmp_path / "log") as running:
        await rig.until_computed(1)
        await rig.deploy(1)
        await rig.define(new, 2)
        await rig.until_computed(2)
        await rig.publish(RECORDS - 1_000)
        await rig.until_computed(2)
        assert running.poll() is None, (tmp_path / "log").read_text()
        assert await rig.vectors(2) == await rig.expected(new)
        assert sum(map(len, (await rig.vectors(1)).values())) == sum(
            record["kind"] == "observation" for log in rig.logs.values() for record in log[:1_000]
        )
        await _serving_agrees(rig, old, version=1)
        await _serving_agrees(rig, new, version=2)
        await rig.deploy(2)
        deadline = time.monotonic() + 60
        while any(key[:2] == b"v1" and not key.endswith(DEFINITION) for key in await rig.state()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
    await _serving_agrees(rig, new, version=2)


async def test_health(broker: KafkaSettings, tmp_path: Path) -> None:
    """Whoever runs it sees when it is ready, and its metrics."""
    await ensure_topics(broker, platform_topics())
    log = tmp_path / "log"
    with service(broker, log):
        deadline = time.monotonic() + 30
        while "listening on" not in log.read_text():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        url = log.read_text().split("listening on ")[1].split('"')[0]
        async with httpx.AsyncClient(base_url=url) as client:
            while (await client.get("/health/ready")).status_code != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
            assert (await client.get("/health/live")).status_code == 200
            assert "everloop_feature_vectors_total" in (await client.get("/metrics")).text
