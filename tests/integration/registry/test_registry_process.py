"""The registry as a process, on a real Kafka and a real Postgres."""

import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from everloop.embedded import Kafka
from everloop.embedded.ports import free_port
from everloop_schemas import cloudevents
from everloop_schemas.events import (
    ArtifactChunk,
    ArtifactRef,
    DataProfiled,
    DatasetRef,
    DeploymentChanged,
    Event,
    FieldProfile,
    MeasuredShare,
    MetricEvidence,
    ModelApproved,
    ModelLoaded,
    ModelRejected,
    ModelTrained,
    PipelineDefined,
    Trigger,
)
from everloop_schemas.shares import SharePattern
from everloop_schemas.signing import signed_bytes
from everloop_schemas.topics import pipeline_topics, platform_topics

pytestmark = pytest.mark.integration

ARTIFACT = b"a model's bytes " * 50_000
ARTIFACT_SHA256 = hashlib.sha256(ARTIFACT).hexdigest()
CHUNK_BYTES = 512 * 1024
PIPELINE_TIME = datetime(2013, 2, 1, tzinfo=UTC)
FILE = """
pipeline: {name}
partition_by: [origin]
partitions: 2
observation:
  event_time: at
  fields: {{origin: {{type: category}}, distance: {{type: number}}}}
label:
  type: binary
  fields: {{delay: {{type: number}}}}
  value: {{late: delay > 15}}
gates:
  - {{metric: log_loss, better_than: prior}}
  - {{metric: log_loss, better_than: champion}}
rollout: {{mode: {mode}}}
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """A broker of this module alone: the registry's topics have fixed names."""
    with Kafka(tmp_path_factory.mktemp("registry-kafka"), port=0) as running:
        asyncio.run(_prepare(running.bootstrap_servers))
        yield running.bootstrap_servers


async def _prepare(bootstrap: str) -> None:
    """The platform's topics, and the bytes of one artifact in chunks."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    topics = platform_topics().items()
    await admin.create_topics([NewTopic(name, partitions, 1) for name, (partitions, _) in topics])
    await admin.close()
    parts = [ARTIFACT[start : start + CHUNK_BYTES] for start in range(0, len(ARTIFACT), CHUNK_BYTES)]
    chunks = [
        ArtifactChunk(sha256=ARTIFACT_SHA256, index=index, count=len(parts), data=part)
        for index, part in enumerate(parts)
    ]
    await publish(bootstrap, [(f"chunk-{chunk.index}", ARTIFACT_SHA256, chunk) for chunk in chunks])


async def publish(bootstrap: str, events: list[tuple[str, str, Event]]) -> None:
    """Publish (id, key, event)."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=2 << 20) as producer:
        for event_id, key, event in events:
            value, headers = cloudevents.encode(event, id=event_id, source="/test")
            await producer.send_and_wait(event.topic, value, key=key.encode(), headers=headers)


async def published(bootstrap: str, model: type[Event], pipeline: str) -> list[Event]:
    """Every committed event of a topic that concerns the pipeline."""
    partition = TopicPartition(model.topic, 0)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
    )
    async with consumer:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        records = []
        while await consumer.position(partition) < end:
            polled = await consumer.getmany(partition, timeout_ms=200)
            records += [record for batch in polled.values() for record in batch]
    events = [cloudevents.decode(model, record.value, record.headers) for record in records]
    return [event for event in events if event.pipeline == pipeline]


async def eventually(check, seconds: float = 30):
    """The first true answer of an async check."""
    until = time.monotonic() + seconds
    while not (answer := await check()):
        assert time.monotonic() < until, f"{check} never came true"
        await asyncio.sleep(0.05)
    return answer


class Registry:
    """A registry process and a client of it."""

    def __init__(self, broker: str, dsn: str, folder: Path) -> None:
        self.broker = broker
        self.dsn = dsn
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.client = httpx.AsyncClient()

    async def ensure_running(self) -> None:
        """Start it unless it runs; a client of this test's own event loop."""
        if self.process is None or self.process.poll() is not None:
            await self.start()
        self.client = httpx.AsyncClient(base_url=self.address, timeout=30)

    async def start(self) -> None:
        port = free_port()
        environment = {
            **os.environ,
            "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": self.broker,
            "EVERLOOP_POSTGRES_DSN": self.dsn,
            "EVERLOOP_DATA_DIR": str(self.folder),
            "EVERLOOP_REGISTRY_HTTP_PORT": str(port),
            "EVERLOOP_KAFKA_SESSION_TIMEOUT_MS": "6000",
            "EVERLOOP_REGISTRY_ARTIFACT_TIMEOUT_SECONDS": "3",
        }
        with (self.folder / "registry.log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: ASYNC220  (it outlives a test's event loop)
                [sys.executable, "-m", "everloop_registry"], env=environment, stdout=log, stderr=log
            )
        self.address = f"http://127.0.0.1:{port}"
        self.client.base_url = httpx.URL(self.address)
        await eventually(self.ready)

    async def ready(self) -> bool:
        assert self.process.poll() is None, (self.folder / "registry.log").read_text()[-3000:]
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{self.address}/health/ready")).status_code == 200
        except httpx.TransportError:
            return False

    async def stop(self, with_signal: int = signal.SIGTERM) -> int:
        self.process.send_signal(with_signal)
        return await asyncio.to_thread(self.process.wait, 30)

    async def put(self, name: str, mode: str = "direct", text: str = FILE) -> httpx.Response:
        return await self.client.put(f"/v1/pipelines/{name}", content=text.format(name=name, mode=mode))

    async def get(self, path: str):
        answer = await self.client.get(f"/v1/pipelines/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, **body) -> httpx.Response:
        return await self.client.post(f"/v1/pipelines/{path}", json=body)

    async def deliver(self, trained: ModelTrained | DataProfiled, times: int = 1) -> None:
        await publish(self.broker, [(trained.run_id, trained.pipeline, trained)] * times)

    async def model(self, name: str, version: int):
        """The version's page, as soon as the registry knows it."""

        async def known():
            answer = await self.client.get(f"/v1/pipelines/{name}/models/{version}")
            return answer.json() if answer.status_code == 200 else None

        return await eventually(known)

    async def announced(self, name: str, count: int) -> list[DeploymentChanged]:
        """The pipeline's deployments once there are `count`, and a moment later, to see one too many."""

        async def enough():
            return len(await published(self.broker, DeploymentChanged, name)) >= count

        await eventually(enough)
        await asyncio.sleep(0.5)
        changes = await published(self.broker, DeploymentChanged, name)
        assert len(changes) == count
        return changes


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("registry-data")


@pytest.fixture(scope="module")
def process(broker, postgres, folder):
    """One process for all tests: starting it takes seconds."""
    registry = Registry(broker, postgres.dsn, folder)
    yield registry
    if registry.process is not None and registry.process.poll() is None:
        registry.process.terminate()
        registry.process.wait(30)


@pytest.fixture
async def registry(process):
    await process.ensure_running()
    yield process
    await process.client.aclose()


@pytest.fixture
def trained():
    def _trained(
        name: str, version: int = 1, *, champion: int | None = None, candidate: float = 0.4, **changes
    ) -> ModelTrained:
        metric = MetricEvidence(
            name="log_loss", candidate=candidate, champion=champion and 0.45, prior=0.5, rows=500
        )
        given = {
            "run_id": f"run-{name}-{version}",
            "pipeline": name,
            "pipeline_version": 1,
            "model_version": version,
            "trigger": Trigger(kind="new-data", event_id="e", reason="1000 new rows"),
            "dataset": DatasetRef(
                sha256="d" * 64,
                rows=1000,
                train_rows=800,
                test_rows=200,
                cut={0: 600, 1: 400},
                first_event_time=PIPELINE_TIME,
                last_event_time=PIPELINE_TIME,
            ),
            "artifact": ArtifactRef(sha256=ARTIFACT_SHA256, bytes=len(ARTIFACT), chunks=2),
            "champion_version": champion,
            "metrics": [metric],
            "parameters": {"trees": 10, "learning_rate": 0.05},
            "libraries": {"lightgbm": "4.7.0"},
            "seconds": {"fit": 1.5},
            "trained_at": PIPELINE_TIME,
        }
        return ModelTrained(**(given | changes))

    return _trained


async def test_a_pipeline_is_put_once_and_said_once(registry, unique) -> None:
    """Applying the same file twice must not look like a new pipeline version to six services."""
    name = unique("put")
    first = await registry.put(name)
    assert first.status_code == 201, first.text
    assert first.json()["outcome"] == "created"
    again = await registry.put(name)
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    changed = await registry.put(name, mode="manual")
    assert changed.json()["version"] == 2

    async def said():
        events = await published(registry.broker, PipelineDefined, name)
        return events if len(events) >= 2 else None

    events = await eventually(said)
    assert [event.version for event in events] == [1, 2]
    assert (await registry.get(f"{name}/versions/1"))["sha256"] == events[0].sha256
    assert [item["version"] for item in (await registry.get(name))["versions"]] == [2, 1]


async def test_the_pipelines_topics_exist_with_its_partitions(registry, unique) -> None:
    name = unique("topics")
    await registry.put(name)
    admin = AIOKafkaAdminClient(bootstrap_servers=registry.broker)
    await admin.start()
    described = await admin.describe_topics(list(pipeline_topics(name, 2)))
    await admin.close()
    found = {topic["topic"]: len(topic["partitions"]) for topic in described}
    assert found == dict.fromkeys(pipeline_topics(name, 2), 2)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        (("partition_by: [origin]", "partition_by: [nowhere]"), 422, "nowhere"),
        (("value: {{late: delay > 15}}", "value: {{late: dela > 15}}"), 422, "dela"),
        (("pipeline: {name}", "pipeline: another"), 422, "another"),
        (("partitions: 2", "partitions: 2\nno: [yes"), 422, "line"),
    ],
)
async def test_a_broken_file_is_refused_with_what_to_mend(registry, unique, change, status, words) -> None:
    name = unique("broken")
    answer = await registry.put(name, text=FILE.replace(*change))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.text
    assert (await registry.client.get(f"/v1/pipelines/{name}")).status_code == 404


async def test_every_problem_of_a_file_is_told_at_once(registry, unique) -> None:
    name = unique("broken")
    text = FILE.replace("[origin]", "[nowhere]").replace("mode: {mode}", "mode: sideways")
    answer = await registry.put(name, text="extra: 1\n" + text)
    assert len(answer.json()["problems"]) >= 2
    assert all(problem["line"] > 0 and problem["mend"] for problem in answer.json()["problems"])


async def test_partitions_cannot_change(registry, unique) -> None:
    name = unique("fixed")
    await registry.put(name)
    answer = await registry.put(name, text=FILE.replace("partitions: 2", "partitions: 4"))
    assert answer.status_code == 409
    assert "partitions" in answer.json()["detail"]


async def test_the_same_training_twice_is_one_deployment_signed(registry, unique, trained, folder) -> None:
    """A second swap for one training costs users latency, and the history its meaning."""
    name = unique("model")
    await registry.put(name)
    await registry.deliver(trained(name), times=2)
    (change,) = await registry.announced(name, 1)
    assert len(await published(registry.broker, ModelApproved, name)) == 1
    public = bytes.fromhex((folder / "keys" / f"{change.key_id}.pub").read_text())
    document = change.model_dump(mode="json")
    verify = Ed25519PublicKey.from_public_bytes(public).verify
    verify(base64.b64decode(change.signature), signed_bytes(document))
    with pytest.raises(InvalidSignature):
        verify(base64.b64decode(change.signature), signed_bytes({**document, "revision": 2}))
    keys = (await registry.client.get("/v1/keys")).json()["keys"]
    assert {"key_id": change.key_id, "public_key": public.hex()}.items() <= keys[0].items()


async def test_a_versions_page_is_its_whole_lineage(registry, unique, trained) -> None:
    name = unique("lineage")
    await registry.put(name)
    await registry.deliver(trained(name))
    await registry.model(name, 1)
    loaded = ModelLoaded(
        id=f"{name}-load",
        pipeline=name,
        model_version=1,
        revision=1,
        instance="serving-0",
        loaded=True,
        seconds=0.2,
        loaded_at=PIPELINE_TIME,
    )
    await publish(registry.broker, [(loaded.id, name, loaded)] * 2)

    async def held():
        page = await registry.get(f"{name}/models/1")
        return page if page["loads"] else None

    page = await eventually(held)
    assert (page["stage"], page["run_id"], page["trigger"]["kind"]) == (
        "champion",
        f"run-{name}-1",
        "new-data",
    )
    assert page["dataset"]["cut"] == {"0": 600, "1": 400}
    assert page["artifact"]["sha256"] == ARTIFACT_SHA256
    assert [gate["passed"] for gate in page["gates"]] == [True, True, True]
    assert [entry["action"] for entry in page["decisions"]] == ["model-approved", "deployment-changed"]
    assert [load["instance"] for load in page["loads"]] == ["serving-0"]
    assert page["parameters"]["learning_rate"] == 0.05


async def test_the_catalog_keeps_what_each_trainings_data_was_like(registry, unique) -> None:
    """The topic is compacted: the older trainings' data is the registry's to remember."""
    name = unique("p")
    await registry.put(name)
    for number in (1, 2, 2):
        at = datetime(2026, 1, number, tzinfo=UTC)
        fields = {
            "wind": FieldProfile(kind="observation", mean=float(number), measures={"null": _share(0.25)})
        }
        profile = DataProfiled(
            run_id=f"{name}-{number}", pipeline=name, pipeline_version=1, dataset_sha256="d" * 64,
            window_seconds=3600, windows=24, days=1, observations=100, labels=90, first_event_time=at,
            last_event_time=at, late_seconds=1.0, late=_share(0.01), fields=fields, profiled_at=at,
        )  # fmt: skip
        await registry.deliver(profile)

    async def kept():
        found = (await registry.get(f"{name}/catalog"))["profiles"]
        return found if len(found) == 2 else None

    newest, oldest = await eventually(kept)
    assert (newest["run_id"], oldest["run_id"]) == (f"{name}-2", f"{name}-1")
    assert newest["fields"]["wind"] == {"of": "observation", "null": 0.25, "mean": 2.0}


def _share(value: float) -> MeasuredShare:
    pattern = SharePattern(share=value, error=0.01, correlation=0.1, worst=1.0, windows=24)
    return MeasuredShare(window=pattern, day=pattern)


async def test_a_worse_model_is_rejected_with_its_evidence(registry, unique, trained) -> None:
    name = unique("worse")
    await registry.put(name)
    await registry.deliver(trained(name))
    await registry.deliver(trained(name, 2, champion=1, candidate=0.47))
    page = await registry.model(name, 2)
    assert page["stage"] == "rejected"
    failed = [gate for gate in page["gates"] if not gate["passed"]]
    assert [(gate["observed"], gate["limit"]) for gate in failed] == [(0.47, 0.45)]

    async def said():
        return await published(registry.broker, ModelRejected, name)

    assert len(await eventually(said)) == 1


async def test_missing_bytes_are_not_approved(registry, unique, trained) -> None:
    name = unique("missing")
    await registry.put(name)
    await registry.deliver(
        trained(name, artifact=ArtifactRef(sha256="e" * 64, bytes=len(ARTIFACT), chunks=2))
    )
    page = await registry.model(name, 1)
    assert (page["stage"], page["gates"][0]["name"], page["gates"][0]["passed"]) == (
        "rejected",
        "artifact",
        False,
    )
    answer = await registry.post(f"{name}/models/1/approve", reason="please", override=True)
    assert answer.status_code == 409


async def test_manual_approval_then_rollback_in_one_call(registry, unique, trained) -> None:
    name = unique("manual")
    await registry.put(name, mode="manual")
    for version in (1, 2):
        await registry.deliver(trained(name, version))
        page = await registry.model(name, version)
        if version == 1:
            assert page["stage"] == "awaiting-approval"
            answer = await registry.post(f"{name}/models/1/approve", by="kim", reason="looks right")
            assert answer.json()["champion"]["model_version"] == 1
    refused = await registry.post(f"{name}/models/2/approve", reason="compared with no champion")
    assert refused.status_code == 409
    await registry.post(f"{name}/models/2/approve", reason="I know", override=True)
    back = await registry.post(f"{name}/rollback", by="kim", reason="complaints")
    assert (back.json()["champion"]["model_version"], back.json()["revision"]) == (1, 3)
    assert (await registry.post(f"{name}/rollback")).status_code == 409
    assert [change.champion.model_version for change in await registry.announced(name, 3)] == [1, 2, 1]


async def test_pins_hold_a_version_beside_the_champion(registry, unique, trained) -> None:
    name = unique("pins")
    await registry.put(name)
    await registry.deliver(trained(name))
    await registry.model(name, 1)
    for _ in range(2):
        pinned = await registry.post(f"{name}/pins/1", reason="frozen for comparison")
    assert [ref["model_version"] for ref in pinned.json()["pinned"]] == [1]
    free = await registry.client.delete(f"/v1/pipelines/{name}/pins/1")
    assert (free.json()["pinned"], free.json()["revision"]) == ([], 3)
    assert (await registry.post(f"{name}/pins/7")).status_code == 404


async def test_poison_and_strangers_are_set_aside(registry, unique, trained) -> None:
    """One unreadable event must not stop the approval of everybody's models."""
    name = unique("poison")
    await registry.put(name)
    async with AIOKafkaProducer(bootstrap_servers=registry.broker) as producer:
        await producer.send_and_wait(
            ModelTrained.topic, b"\xff", key=name.encode(), headers=[("ce_id", b"\xff")]
        )
    await registry.deliver(trained(unique("stranger")))
    await registry.deliver(trained(name))
    assert (await registry.model(name, 1))["stage"] == "champion"


async def test_an_edited_history_shows(registry, unique, trained, postgres) -> None:
    """Otherwise whoever holds the database could change who approved what."""
    name = unique("edited")
    await registry.put(name)
    await registry.deliver(trained(name))
    await registry.model(name, 1)
    history = await registry.get(f"{name}/history")
    assert (history["intact"], len(history["entries"])) == (True, 3)
    connection = await asyncpg.connect(postgres.dsn)
    edit = "UPDATE registry.audit SET actor = 'nobody' WHERE pipeline = $1 AND action = 'model-approved'"
    await connection.execute(edit, name)
    await connection.close()
    history = await registry.get(f"{name}/history")
    assert (history["intact"], history["first_broken"]) == (False, 2)


async def test_killed_between_decision_and_publication_it_announces_once(
    registry, unique, trained, postgres
) -> None:
    """A crash at the worst moment must neither lose an approved model nor swap it in twice."""
    name = unique("killed")
    await registry.put(name)
    leader = await asyncpg.connect(postgres.dsn)
    await registry.stop()
    # while the test leads, no relay publishes: the registry decides and is killed before anyone hears
    await leader.execute(
        "SELECT pg_advisory_lock(hashtextextended('everloop-outbox-leader:' || $1, 0))", "registry"
    )
    await registry.start()
    await registry.deliver(trained(name))
    await registry.model(name, 1)
    await registry.stop(signal.SIGKILL)
    assert await published(registry.broker, DeploymentChanged, name) == []
    await leader.close()
    await registry.start()
    (change,) = await registry.announced(name, 1)
    assert (change.revision, change.champion.model_version) == (1, 1)
    assert len(await published(registry.broker, ModelApproved, name)) == 1
    assert json.loads((await registry.client.get(f"/v1/pipelines/{name}/deployment")).text)["revision"] == 1


async def test_it_ends_gracefully(registry) -> None:
    assert await registry.stop() == 0
