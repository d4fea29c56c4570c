"""The monitor as a process, on real Kafka and Postgres."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from everloop.embedded.ports import free_port
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents, events
from everloop_schemas.pipeline import load, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

pytestmark = pytest.mark.integration

START = datetime(2024, 1, 1, tzinfo=UTC)
SHA = "0" * 64
FILE = """
pipeline: {name}
partition_by: [site]
partitions: 2
observation:
  event_time: at
  fields: {{site: {{type: category}}, level: {{type: number}}}}
label:
  type: binary
  fields: {{outcome: {{type: number}}}}
  value: {{bad: outcome > 0.5}}
  expected_after: 6h
"""


class Monitor:
    """One monitor process, started anew after a kill."""

    def __init__(self, env: dict[str, str], data_dir: Path) -> None:
        self.port = free_port()
        self._env = {**env, "EVERLOOP_MONITOR_HTTP_PORT": str(self.port), "EVERLOOP_DATA_DIR": str(data_dir)}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "everloop_monitor"], env=self._env)

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def until(self, path: str, met: Callable[[dict], bool], seconds: float = 60) -> dict:
        limit = time.monotonic() + seconds
        answer: object = None
        while time.monotonic() < limit:
            with contextlib.suppress(httpx.HTTPError):
                response = self.get(path)
                answer = response.text
                if response.is_success and met(response.json()):
                    return response.json()
            time.sleep(0.2)
        raise AssertionError(f"{path} answered {answer}")


@pytest.fixture
def monitor(service_env: dict[str, str], tmp_path: Path) -> Iterator[Monitor]:
    started = Monitor(service_env, tmp_path)
    yield started
    started.process.terminate()
    started.process.wait(30)


@pytest.fixture
async def name(kafka, unique) -> str:
    """A new pipeline with its topics."""
    pipeline = unique("sites")
    settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    await ensure_topics(settings, {**platform_topics(), **pipeline_topics(pipeline, 2)})
    return pipeline


class Sender:
    """Publishes events as the other services would."""

    def __init__(self, producer: AIOKafkaProducer, pipeline: str) -> None:
        self._producer = producer
        self._pipeline = pipeline
        self._number = 0

    async def send(self, event: events.Event, partition: int | None = None) -> None:
        self._number += 1
        topic = event.topic if partition is None else f"{event.topic}.{self._pipeline}"
        value, headers = cloudevents.encode(event, id=str(self._number), source="/test")
        await self._producer.send(topic, value, self._pipeline.encode(), partition or 0, headers=headers)

    async def define(self) -> None:
        text = FILE.format(name=self._pipeline)
        pipeline = load(text, "test.yaml")
        assert not isinstance(pipeline, list), pipeline
        await self.send(
            events.PipelineDefined(
                pipeline=self._pipeline,
                version=1,
                definition=to_definition(pipeline),
                sha256=SHA,
                partitions=2,
                defined_at=START,
                defined_by="test",
            )
        )

    async def deploy(self, last: datetime) -> None:
        artifact = events.ArtifactRef(sha256=SHA, bytes=1, chunks=1)
        dataset = events.DatasetRef(
            sha256=SHA,
            rows=10,
            train_rows=8,
            test_rows=2,
            cut={0: 1, 1: 1},
            first_event_time=START,
            last_event_time=last,
        )
        await self.send(
            events.ModelTrained(
                run_id="run",
                pipeline=self._pipeline,
                pipeline_version=1,
                model_version=1,
                trigger=events.Trigger(kind="new-data", event_id="e", reason="rows"),
                dataset=dataset,
                artifact=artifact,
                champion_version=None,
                metrics=[],
                parameters={},
                libraries={},
                seconds={},
                trained_at=last,
            )
        )
        champion = events.ModelRef(model_version=1, pipeline_version=1, artifact=artifact)
        await self.send(
            events.DeploymentChanged(
                pipeline=self._pipeline,
                revision=1,
                champion=champion,
                reason="first",
                changed_at=last,
                key_id="0" * 16,
                signature="",
            )
        )

    async def vector(self, at: datetime, number: int, level: float) -> None:
        await self.send(
            events.VectorComputed(
                id=f"{number}",
                pipeline_version=1,
                log_partition=number % 2,
                log_offset=number,
                event_time=at,
                known_at=at,
                values=[level, "a"],  # in the order of the features' names
            ),
            number % 2,
        )

    async def prediction(self, at: datetime, number: int, output: float) -> None:
        await self.send(
            events.PredictionMade(
                id=f"{number}",
                pipeline_version=1,
                model_version=1,
                arm="champion",
                propensity=1,
                event_time=at,
                predicted_at=at,
                values=[0.0, "a"],
                output=output,
                latency_seconds=0.001,
            ),
            number % 2,
        )

    async def label(self, at: datetime, number: int, outcome: float | None) -> None:
        fields = {"site": "a", "outcome": outcome}
        await self._record(at, number, fields, retraction=False)

    async def retraction(self, at: datetime, number: int) -> None:
        await self._record(at, number, {"site": "a"}, retraction=True)

    async def _record(self, at: datetime, number: int, fields: dict, *, retraction: bool) -> None:
        await self.send(
            events.RecordAccepted(
                kind="label",
                id=f"{number}",
                source="test",
                event_time=at,
                known_at=at,
                fields=fields,
                retraction=retraction,
            ),
            number % 2,
        )


@pytest.fixture
async def sender(kafka, name: str):
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=5)
    await producer.start()
    yield Sender(producer, name)
    await producer.stop()


async def test_joins_in_either_order_once_although_killed(
    monitor: Monitor, name: str, sender: Sender
) -> None:
    """A live figure that misses or doubles answers would approve the wrong model."""
    await sender.define()
    rows = 3000
    for number in range(rows):
        at = START + timedelta(minutes=number)
        known = at + timedelta(hours=1)
        if number % 2:
            await sender.label(known, number, float(number % 5 == 0))
            await sender.prediction(at, number, 0.25)
        else:
            await sender.prediction(at, number, 0.25)
            await sender.label(known, number, float(number % 5 == 0))
        if number % 1000 == 500:
            await sender._producer.flush()
            monitor.kill()
            monitor.start()
    await sender._producer.flush()
    path = f"/v1/pipelines/{name}/performance"
    found = monitor.until(path, lambda body: sum(day["rows"] for day in body["days"]) >= rows)
    assert sum(day["rows"] for day in found["days"]) == rows
    share = 0.2
    first = found["days"][0]
    assert first["positive_share"] == pytest.approx(share, abs=0.01)
    assert first["log_loss"] == pytest.approx(-(share * -1.3863 + (1 - share) * -0.2877), abs=0.01)
    assert first["auc"] == pytest.approx(0.5)
    one = monitor.get(f"/v1/predictions/15?pipeline={name}").json()["predictions"][0]
    assert (one["label"], one["output"]) == (1.0, 0.25)


async def test_corrections_change_what_answers_are_judged_by(
    monitor: Monitor, name: str, sender: Sender
) -> None:
    """An outcome that was corrected or withdrawn must not approve, nor condemn, a model."""
    await sender.define()
    later, last = START + timedelta(hours=1), START + timedelta(hours=2)
    for number in range(10):
        await sender.prediction(START, number, 0.25)
        await sender.label(later, number, 1.0)
    await sender.label(last, 0, 0.0)  # revised
    await sender.label(START, 1, 0.0)  # known before the one in force: changes nothing
    await sender.label(last, 2, None)  # revised to no outcome
    await sender.retraction(last, 3)
    await sender.retraction(last, 14)  # before its label and its answer
    await sender.label(last, 14, 1.0)
    await sender.prediction(START, 14, 0.25)
    await sender.label(last, 3, 1.0)  # an outcome of what is withdrawn
    await sender._producer.flush()

    def settled(body: dict) -> bool:
        return [(day["rows"], day["positive_share"]) for day in body["days"]] == [(8, 7 / 8)]

    monitor.until(f"/v1/pipelines/{name}/performance", settled)
    for number, label in ((0, 0.0), (1, 1.0), (2, None), (3, None), (14, None)):
        page = monitor.get(f"/v1/predictions/{number}?pipeline={name}").json()["predictions"][0]
        assert page["label"] == label, number


async def test_a_shifted_feature_raises_one_alarm(monitor: Monitor, name: str, sender: Sender, kafka) -> None:
    """Drift that nobody is told of is the upkeep that Everloop exists to end."""
    await sender.define()
    trained = START + timedelta(days=20)
    await sender.deploy(trained)
    rng = random.Random(4)
    number = 0
    for day in range(45):
        level = rng.gauss(0, 0.2) + (3.0 if day > 22 else 0.0)
        for row in range(40):
            number += 1
            at = START + timedelta(days=day, minutes=30 * row)
            await sender.vector(at, number, rng.gauss(level, 1))
    await sender._producer.flush()
    path = f"/v1/pipelines/{name}/drift"
    found = monitor.until(path, lambda body: any(verdict["detected"] for verdict in body["verdicts"]))
    assert found["verdicts"][0]["evidence"][0]["feature"] == "level"
    alarms = [alarm async for alarm in _drift_events(kafka.bootstrap_servers, name)]
    assert [(alarm.kind, alarm.model_version) for alarm in alarms] == [("feature", 1)]
    assert alarms[0].evidence[0].feature == "level"


async def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(
    monitor: Monitor, name: str, sender: Sender
) -> None:
    """One broken event must not stop the figures of all others."""
    await sender.define()
    await sender._producer.send(f"serving-prediction-made-v1.{name}", b"\xff{", partition=0)
    await sender.prediction(START, 2, 0.5)
    await sender.label(START, 2, 1.0)
    await sender._producer.flush()
    path = f"/v1/pipelines/{name}/performance"
    assert monitor.until(path, lambda body: len(body["days"]) == 1)["days"][0]["rows"] == 1


def test_unknown_pipelines_and_predictions_are_named(monitor: Monitor) -> None:
    """An engineer on call needs to know what to do about a 404."""
    monitor.until("/health/live", lambda _: True)
    answer = monitor.get("/v1/pipelines/nothing/performance")
    assert (answer.status_code, answer.json()["status"]) == (404, 404)
    assert "everloop pipelines" in answer.json()["detail"]
    assert monitor.get("/v1/predictions/none").status_code == 404


async def _drift_events(bootstrap_servers: str, pipeline: str):
    consumer = AIOKafkaConsumer(
        events.DriftDetected.topic,
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        batches = await consumer.getmany(timeout_ms=8000)
        for batch in batches.values():
            for record in batch:
                event = cloudevents.decode(events.DriftDetected, record.value, record.headers)
                assert isinstance(event, events.DriftDetected)
                if event.pipeline == pipeline:
                    yield event
    finally:
        await consumer.stop()
