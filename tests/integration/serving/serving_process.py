"""Serving as the process that it is, on a real Kafka."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from everloop.embedded.ports import free_port
from everloop_kernel.admin import ensure_topics
from everloop_kernel.artifacts import chunks
from everloop_kernel.kafka import plain_producer, reading_consumer
from everloop_kernel.kafka_reading import partitions_of
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import DeploymentChanged
from everloop_schemas.topics import pipeline_topics, platform_topics

ARTIFACTS = "trainer-artifact-chunk-v1"


class ServingProcess:
    """`python -m everloop_serving` with its own data directory and ports."""

    def __init__(self, bootstrap: str, data_dir: Path, **env: str) -> None:
        self.data_dir = data_dir
        self.port, self.grpc_port = free_port(), free_port()
        self.log = data_dir / "serving.log"
        self._process: subprocess.Popen | None = None
        self._env = {
            **os.environ,
            "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "EVERLOOP_DATA_DIR": str(data_dir),
            "EVERLOOP_SERVING_HTTP_PORT": str(self.port),
            "EVERLOOP_SERVING_GRPC_PORT": str(self.grpc_port),
            "EVERLOOP_LOG_FORMAT": "console",
            **env,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> float:
        """Start and wait until it is live; the seconds that took."""
        began = time.monotonic()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "everloop_serving"], env=self._env, stdout=log, stderr=log
            )
        self.wait_for("/health/live")
        return time.monotonic() - began

    def wait_for(self, path: str, status: int = 200, seconds: float = 20.0) -> httpx.Response:
        deadline = time.monotonic() + seconds
        answer = None
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()
            try:
                answer = httpx.get(self.url + path)
                if answer.status_code == status:
                    return answer
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        said = answer.text if answer is not None else "nothing"
        raise AssertionError(f"{path} said {said}\n{self.log.read_text()[-4000:]}")

    def stop(self, wanted: int = signal.SIGTERM) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(wanted)
        code = self._process.wait(40)
        self._process = None
        return code


async def publish(kafka: KafkaSettings, deployment: DeploymentChanged, *artifacts: bytes) -> None:
    """What trainer and registry publish, here by hand."""
    await ensure_topics(kafka, {**platform_topics(), **pipeline_topics(deployment.pipeline, 4)})
    producer = plain_producer(kafka)
    await producer.start()
    try:
        for data in artifacts:
            for headers, piece in chunks(data):
                key = dict(headers)["everloop-sha256"]
                await producer.send_and_wait(ARTIFACTS, piece, key, 0, headers=headers)
        value, headers = cloudevents.encode(deployment, id=f"d{deployment.revision}", source="test")
        await producer.send_and_wait(
            deployment.topic, value, deployment.pipeline.encode(), 0, headers=headers
        )
    finally:
        await producer.stop()


async def read_topic(kafka: KafkaSettings, topic: str, *, until: int, seconds: float = 20.0) -> list:
    """All committed records, when there are at least `until` of them, in the order of each partition."""
    consumer = reading_consumer(kafka)
    await consumer.start()
    try:
        partitions = await partitions_of(consumer, topic)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        found: list = []
        deadline = time.monotonic() + seconds
        quiet = 0
        while time.monotonic() < deadline and quiet < 3:
            got = await consumer.getmany(timeout_ms=300)
            found += [record for records in got.values() for record in records]
            quiet = quiet + 1 if len(found) >= until and not got else 0
        return found
    finally:
        await consumer.stop()
        await asyncio.sleep(0)
