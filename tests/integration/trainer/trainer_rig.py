"""A trainer as a process, and what its neighbours would publish to it."""

import asyncio
import hashlib
import os
import signal
import sys
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import httpx
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from everloop.embedded.ports import free_port
from everloop_features import compile as compile_pipeline
from everloop_features import replay
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import (
    ArtifactRef,
    DataArrived,
    DeploymentChanged,
    DriftDetected,
    DriftEvidence,
    ModelRef,
    ModelTrained,
    PipelineDefined,
    RecordAccepted,
    RunFailed,
    RunStarted,
    VectorComputed,
)
from everloop_schemas.pipeline import load, to_definition
from everloop_schemas.topics import TOPICS, pipeline_topics, platform_topics

START = datetime(2013, 1, 1, tzinfo=UTC)
PARTITIONS = 2
FILE = """
pipeline: {name}
partition_by: [origin]
partitions: 2
observation:
  event_time: at
  notify_every: {notify_every}
  fields:
    origin: {{type: category}}
    carrier: {{type: category}}
    wind: {{type: number, nullable: true}}
    wet: {{type: boolean}}
label:
  type: binary
  fields: {{delay: {{type: number, nullable: true}}}}
  value: {{late: delay > 0}}
features:
  hour: hour(event_time)
  carrier: carrier
  wind: wind
  wet: wet
  flights: count(window='6h', by=[origin])
  late: mean(late, window='12h', by=[origin], over=labels)
training:
  when: {{new_labelled_rows: {rows}, drift: true, max_age: null, cooldown: 1h}}
  rows: {{window: 365d}}
  model: {{trees: {trees}, leaves: 7, min_data_in_leaf: 20}}
  minimum_rows: 300
"""


def pipeline_of(name, rows=1500, trees=30, notify_every=1000):
    text = FILE.format(name=name, rows=rows, trees=trees, notify_every=notify_every)
    loaded = load(text, "test.yaml")
    assert not isinstance(loaded, list), [str(problem) for problem in loaded]
    return loaded


@dataclass
class World:
    """Flights of one pipeline: observations every six minutes, each label two hours later, in one log."""

    pipeline: object
    version: int = 1
    logs: dict[int, list[RecordAccepted]] = field(default_factory=lambda: {n: [] for n in range(PARTITIONS)})
    sent: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    made: int = 0

    def grow(self, rows, seed=0):
        """Add so many observations, and every label that has become known by then."""
        random = np.random.default_rng(seed + self.made)
        for i in range(self.made, self.made + rows):
            origin = i % PARTITIONS
            at = START + timedelta(minutes=6) * i
            wind = None if i % 11 == 0 else float(random.normal())
            fields = {
                "origin": ("EWR", "JFK")[origin],
                "carrier": "ABCD"[int(random.integers(4))],
                "wind": wind,
                "wet": bool(random.random() < 0.3),
            }
            self._add(origin, "observation", f"f{i}", at, fields)
            delay = (wind or 0.0) + fields["wet"] + float(random.normal())
            told = {"origin": fields["origin"], "delay": delay}
            self._add(origin, "label", f"f{i}", at + timedelta(hours=2), told)
        self.made += rows

    def live(self, at):
        """Add one observation of another time than the history's, and its label."""
        fields = {"origin": "EWR", "carrier": "A", "wind": 0.5, "wet": True}
        self._add(0, "observation", "live", at, fields)
        self._add(0, "label", "live", at, {"origin": "EWR", "delay": 1.0})

    def correct(self, *, retracted=(), revised=(), nullified=()):
        """Withdraw observations; give labels another value, or none."""
        at = START + timedelta(minutes=6) * self.made + timedelta(hours=3)
        for i, delay in [*((i, 99.0) for i in revised), *((i, None) for i in nullified)]:
            key = {"origin": ("EWR", "JFK")[i % PARTITIONS]}
            self._add(i % PARTITIONS, "label", f"f{i}", at, {**key, "delay": delay})
        for i in retracted:
            key = {"origin": ("EWR", "JFK")[i % PARTITIONS]}
            self._add(i % PARTITIONS, "label", f"f{i}", at, key, retraction=True)

    def _add(self, partition, kind, id_, at, fields, *, retraction=False):
        record = RecordAccepted(
            kind=kind,
            id=id_,
            source="test",
            event_time=at,
            known_at=at,
            fields=fields,
            retraction=retraction,
        )
        self.logs[partition].append(record)

    def labels(self, partition):
        return sum(record.kind == "label" and not record.retraction for record in self.logs[partition])


class Neighbours:
    """Publishes what ingest, feature, registry and monitor would."""

    def __init__(self, bootstrap):
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self._count = 0
        self._source = uuid.uuid4().hex

    async def __aenter__(self):
        await ensure_topics(self.kafka, platform_topics())
        self._producer = AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap_servers, linger_ms=20)
        await self._producer.start()
        return self

    async def __aexit__(self, *_):
        await self._producer.stop()

    async def define(self, world):
        await ensure_topics(self.kafka, pipeline_topics(world.pipeline.pipeline, PARTITIONS))
        event = PipelineDefined(
            pipeline=world.pipeline.pipeline,
            version=world.version,
            definition=to_definition(world.pipeline),
            sha256="a" * 64,
            partitions=PARTITIONS,
            defined_at=START,
            defined_by="test",
        )
        await self.tell(event)

    async def tell(self, event, id_=None):
        self._count += 1
        value, headers = cloudevents.encode(event, id=id_ or f"{self._source}-{self._count}", source="/test")
        await self._producer.send_and_wait(event.topic, value, headers=headers, key=event.pipeline.encode())

    async def publish(self, world, *, arrive=True, vectors=True):
        """Send what the logs hold beyond what was sent, its vectors, and then that data has arrived."""
        name = world.pipeline.pipeline
        for partition, log in world.logs.items():
            new = log[world.sent[partition] :]
            await self._send(TOPICS[RecordAccepted.topic].topic_for(name), partition, new)
            if vectors:
                await self.compute(world, partition, world.sent[partition])
            world.sent[partition] = len(log)
        if arrive:
            await self.announce(world)

    async def announce(self, world, **changes):
        """Say for every partition how much its log holds."""
        for partition in world.logs:
            await self.tell(self._arrived(world, partition).model_copy(update=changes))

    async def compute(self, world, partition, since):
        """Send the vectors of the log's observations from the offset `since` on."""
        compiled = compile_pipeline(world.pipeline)
        vectors = [
            VectorComputed(
                id=v.id,
                pipeline_version=world.version,
                log_partition=partition,
                log_offset=v.offset,
                event_time=v.event_time,
                known_at=v.known_at,
                values=v.values,
            )
            for v in replay(compiled, list(enumerate(world.logs[partition])))
            if v.offset >= since
        ]
        await self._send(TOPICS[VectorComputed.topic].topic_for(world.pipeline.pipeline), partition, vectors)

    def _arrived(self, world, partition):
        log = world.logs[partition]
        return DataArrived(
            id=f"arrived-{partition}-{len(log)}",
            pipeline=world.pipeline.pipeline,
            partition=partition,
            observations=sum(record.kind == "observation" for record in log),
            labels=world.labels(partition),
            known_at=log[-1].known_at,
        )

    async def _send(self, topic, partition, events):
        for event in events:
            self._count += 1
            value, headers = cloudevents.encode(event, id=f"{self._source}-{self._count}", source="/test")
            await self._producer.send(topic, value, headers=headers, partition=partition)
        await self._producer.flush()

    async def drift(self, world, id_="drift-1"):
        evidence = DriftEvidence(
            feature="wind", statistic="ks", value=0.4, threshold=0.2, reference_days=20, current_days=5
        )
        event = DriftDetected(
            id=id_,
            pipeline=world.pipeline.pipeline,
            model_version=1,
            kind="feature",
            evidence=[evidence],
            window_start=START,
            window_end=START,
            detected_at=START,
        )
        await self.tell(event, id_)

    async def deploy(self, trained, revision=1):
        champion = ModelRef(
            model_version=trained.model_version,
            pipeline_version=trained.pipeline_version,
            artifact=ArtifactRef(**trained.artifact.model_dump()),
        )
        event = DeploymentChanged(
            pipeline=trained.pipeline,
            revision=revision,
            champion=champion,
            reason="test",
            changed_at=START,
            key_id="0" * 16,
            signature="",
        )
        await self.tell(event)


class Ears:
    """Reads what the trainer publishes about one pipeline, each event with its CloudEvents id."""

    MODELS = (RunStarted, ModelTrained, RunFailed)

    def __init__(self, bootstrap, pipeline):
        self._bootstrap, self._pipeline = bootstrap, pipeline
        self.heard = []

    async def __aenter__(self):
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, auto_offset_reset="earliest", isolation_level="read_committed"
        )
        await self._consumer.start()
        places = [TopicPartition(model.topic, 0) for model in self.MODELS]
        self._consumer.assign(places)
        await self._consumer.seek_to_beginning(*places)
        return self

    async def __aexit__(self, *_):
        await self._consumer.stop()

    def of(self, model):
        return [event for event in self.heard if isinstance(event, model)]

    async def listen(self, seconds):
        models = {model.topic: model for model in self.MODELS}
        for place, records in (await self._consumer.getmany(timeout_ms=int(seconds * 1000))).items():
            for record in records:
                event = cloudevents.decode(models[place.topic], record.value, record.headers)
                if event.pipeline == self._pipeline:
                    self.heard.append(event)

    async def wait_for(self, model, count=1, seconds=40.0):
        deadline = time.monotonic() + seconds
        while len(self.of(model)) < count:
            assert time.monotonic() < deadline, f"no {count} {model.__name__}; heard {self.heard}"
            await self.listen(0.2)
        return self.of(model)[count - 1]


class TrainerProcess:
    """`python -m everloop_trainer` with its own directory."""

    def __init__(self, bootstrap, dsn, directory: Path, **settings):
        self.port = free_port()
        self.directory = directory
        self._env = {
            **os.environ,
            "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "EVERLOOP_POSTGRES_DSN": dsn,
            "EVERLOOP_DATA_DIR": str(directory),
            "EVERLOOP_TRAINER_HTTP_PORT": str(self.port),
            "EVERLOOP_TRAINER_LEASE_SECONDS": "3",
            **{f"EVERLOOP_TRAINER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._child = None

    @property
    def pid(self):
        return self._child.pid

    def mapped_files(self):
        """What the process has loaded, as the kernel sees it."""
        return Path(f"/proc/{self.pid}/maps").read_text()

    async def start(self):
        with (self.directory / "trainer.log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "everloop_trainer", env=self._env, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while not await self._ready():
            log = (self.directory / "trainer.log").read_text()
            assert self._child.returncode is None, log
            assert time.monotonic() < deadline, log
            await asyncio.sleep(0.1)

    async def _ready(self):
        try:
            return (await self.get("/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def get(self, path):
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.get(f"http://127.0.0.1:{self.port}{path}")

    async def post(self, path, body=None, **options):
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(f"http://127.0.0.1:{self.port}{path}", json=body, **options)

    async def kill(self):
        self._child.send_signal(signal.SIGKILL)
        await self._child.wait()

    async def stop(self):
        if self._child is not None and self._child.returncode is None:
            self._child.terminate()
            return await self._child.wait()
        return None


@asynccontextmanager
async def trainer(bootstrap, dsn, directory, **settings):
    process = TrainerProcess(bootstrap, dsn, directory, **settings)
    await process.start()
    try:
        yield process
    finally:
        await process.stop()


async def check_segments(postgres, home, name, records=2 * 2600):
    """Every row is in one segment or staged, none twice, and every file is what was registered."""
    connection = await asyncpg.connect(postgres.dsn, server_settings={"search_path": "trainer"})
    rows = await connection.fetch("SELECT * FROM segments WHERE pipeline = $1 ORDER BY first_offset", name)
    staged = await connection.fetchval(
        "SELECT count(*) FROM staged WHERE pipeline = $1 AND kind = 'records'", name
    )
    await connection.close()
    ends = {}
    for row in rows:
        pile = row["kind"], row["version"], row["partition"]
        assert row["first_offset"] > ends.get(pile, -1)
        ends[pile] = row["last_offset"]
        data = (home / "trainer" / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
    assert sum(row["rows"] for row in rows if row["kind"] == "records") + staged == records
    files = {
        str(path.relative_to(home / "trainer"))
        for path in (home / "trainer/segments" / name).rglob("*.parquet*")
    }
    assert files == {row["file"] for row in rows}
    return len(rows)
