"""Ingest and feature as processes on a broker of their own, and a client that asks them."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from everloop.addresses import Addresses
from everloop.client import Client
from everloop.embedded.ports import free_port
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.canonical import dumps
from everloop_schemas.cloudevents import encode
from everloop_schemas.events import PipelineDefined
from everloop_schemas.pipeline import Pipeline, load, to_definition
from everloop_schemas.topics import pipeline_topics

PIPELINE = """
pipeline: NAME
partition_by: [shop]
partitions: 2
observation:
  event_time: sold_at
  replay_sources: [history]
  fields:
    shop: {type: category}
    size: {type: number, nullable: true, min: 0}
label:
  type: binary
  fields: {gain: {type: number}}
  value: {won: gain > 0}
  expected_after: 1h
features:
  third: size / 3
  n: count(window='1h', by=[shop])
  mean_size: mean(size, window='1d', by=[shop])
  rate: mean(won, window='7d', by=[shop], over=labels)
"""


class Rig:
    """The two services, their log files, and pipelines that the test defines in the registry's place."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=bootstrap)
        self.folder = folder
        self.ports = {"ingest": free_port(), "feature": free_port()}
        self.definitions: dict[str, dict[int, Pipeline]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def start(self, service: str, **settings: str) -> None:
        environment = {
            **os.environ,
            "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "EVERLOOP_KAFKA_SESSION_TIMEOUT_MS": "6000",
            f"EVERLOOP_{service.upper()}_HTTP_PORT": str(self.ports[service]),
            "EVERLOOP_DATA_DIR": str(self.folder),
            "EVERLOOP_LOG_FORMAT": "console",
            **settings,
        }
        with (self.folder / f"{service}.log").open("ab") as output:
            self.processes[service] = subprocess.Popen(
                [sys.executable, "-m", f"everloop_{service}"], env=environment, stdout=output, stderr=output
            )

    def wait_ready(self, service: str, seconds: float = 60) -> None:
        def is_ready() -> bool:
            assert self.processes[service].poll() is None, self.log(service)
            try:
                return httpx.get(f"{self.url(service)}/health/ready").is_success
            except httpx.TransportError:
                return False

        wait_for(is_ready, seconds, f"{service} is not ready:\n{self.log(service)}")

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()[-3000:]

    def kill(self, service: str) -> None:
        process = self.processes.pop(service, None)
        if process is not None:
            process.kill()
            process.wait()

    def end(self, service: str) -> None:
        """Let it leave its group, so that the next one need not wait for the session to end."""
        process = self.processes.pop(service)
        process.terminate()
        process.wait(30)

    def define(self, name: str, text: str = PIPELINE, version: int = 1) -> Pipeline:
        """What the registry does: topics, then the definition, on Kafka and to those who ask."""
        pipeline = load(text.replace("NAME", name))
        assert isinstance(pipeline, Pipeline), pipeline
        self.definitions.setdefault(name, {})[version] = pipeline
        asyncio.run(self._publish(pipeline, version))
        return pipeline

    async def _publish(self, pipeline: Pipeline, version: int) -> None:
        name = pipeline.pipeline
        await ensure_topics(self.kafka, pipeline_topics(name, pipeline.partitions))
        definition = to_definition(pipeline)
        event = PipelineDefined(
            pipeline=name,
            version=version,
            definition=definition,
            sha256="0" * 64,
            partitions=pipeline.partitions,
            defined_at=datetime.now(UTC),
            defined_by="test",
        )
        value, headers = encode(event, id=f"{name}-{version}-{len(dumps(definition))}", source="test")
        async with plain_producer(self.kafka) as producer:
            await producer.send_and_wait(PipelineDefined.topic, value, name.encode(), headers=headers)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client whose registry is this rig."""
        addresses = Addresses(kafka=self.kafka.bootstrap_servers, ingest=self.url("ingest"))
        with Client(addresses) as client:
            real = client._http
            client._http = httpx.Client(mounts={"http://127.0.0.1:8004": httpx.MockTransport(self._registry)})
            yield client
            real.close()

    def _registry(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/pipelines":
            return httpx.Response(200, json={"pipelines": [{"pipeline": name} for name in self.definitions]})
        _, _, _, name, *rest = request.url.path.split("/")
        versions = self.definitions[name]
        version = int(rest[1]) if rest else max(versions)
        definition: dict[str, Any] = to_definition(versions[version])
        return httpx.Response(200, json={"pipeline": name, "version": version, "definition": definition})

    def known_to_ingest(self, name: str) -> None:
        url = f"{self.url('ingest')}/v1/pipelines/{name}/labels"
        wait_for(lambda: httpx.post(url, json=[]).status_code == 400, 20, f"ingest does not know {name}")

    def stop(self) -> None:
        for service in list(self.processes):
            self.kill(service)


def wait_for(condition: Any, seconds: float, why: str = "it did not come true in time") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.1)
