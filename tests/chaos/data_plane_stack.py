"""Ingest and feature, several members each, on a broker of their own, and what can be done to them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from chaos.data_plane_records import NAME, PIPELINE
from everloop.embedded import Kafka
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import admin_client, close_quietly, plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import PipelineDefined
from everloop_schemas.pipeline import load, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

__all__ = ["MEMBERS", "SERVICES", "DataPlane", "data_plane"]

SERVICES = ("ingest", "feature")
MEMBERS = (1, 2)
CALM_SESSION_MS = 15_000


@asynccontextmanager
async def closed_afterwards(admin: AIOKafkaAdminClient) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, closed whatever happens."""
    try:
        await admin.start()
        yield admin
    finally:
        await close_quietly(admin)


class DataPlane:
    """The broker and the members; one that ends is started again, as any supervisor does."""

    def __init__(self, folder: Path, session_ms: int) -> None:
        folder.mkdir()
        self._session_ms = session_ms
        self._folder = folder
        # the state topic keeps all its history here: its clock entries say where each transaction ended
        self.kafka = Kafka(folder / "kafka", port=0, settings={"log.cleaner.enable": "false"})
        self.settings = KafkaSettings(bootstrap_servers=self.kafka.bootstrap_servers)
        self.members: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts: Counter[str] = Counter()

    async def define(self) -> None:
        """What the registry does: topics and the definition."""
        pipeline = load(PIPELINE)
        await ensure_topics(
            self.settings, {**platform_topics(), **pipeline_topics(NAME, pipeline.partitions)}
        )
        defined = {
            "pipeline": NAME, "version": 1, "definition": to_definition(pipeline), "sha256": "0" * 64,
            "partitions": pipeline.partitions, "defined_at": "2024-03-01T00:00:00Z", "defined_by": "test",
        }  # fmt: skip
        event = PipelineDefined.model_validate(defined)
        value, headers = cloudevents.encode(event, id=NAME, source="test")
        async with plain_producer(self.settings) as producer:
            await producer.send_and_wait(event.topic, value, NAME.encode(), headers=headers)

    def join(self, name: str) -> None:
        """One more member of a service's group; `name` is service and number."""
        environment = {
            **os.environ,
            "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "EVERLOOP_KAFKA_SESSION_TIMEOUT_MS": str(self._session_ms),
            "EVERLOOP_INGEST_HTTP_PORT": "0",
            "EVERLOOP_FEATURE_HTTP_PORT": "0",
            "EVERLOOP_DATA_DIR": str(self._folder / name),
        }
        command = [sys.executable, "-m", f"everloop_{service_of(name)}"]
        with (self._folder / f"{name}.log").open("ab") as log:
            self.members[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    async def leave(self, name: str) -> None:
        """Ask a member to end, and wait until it has."""
        member = self.members.pop(name)
        member.terminate()
        await asyncio.to_thread(member.wait, 60)

    def kill(self, name: str) -> None:
        """`kill -9`."""
        self.members[name].kill()

    async def kill_for_good(self, service: str) -> None:
        """`kill -9` of every member of a service; nothing starts them again."""
        for name in [name for name in self.members if service_of(name) == service]:
            member = self.members.pop(name)
            member.kill()
            await asyncio.to_thread(member.wait)

    async def freeze(self, *names: str) -> None:
        """Stop members for longer than their session: others take over, then the zombies wake."""
        frozen = [self.members[name] for name in names]
        for member in frozen:
            member.send_signal(signal.SIGSTOP)
        await asyncio.sleep(self._session_ms / 1000 + 2)
        for member in frozen:
            member.send_signal(signal.SIGCONT)

    async def until_shared(self) -> None:
        """Wait until every member has its share of the partitions: only then can one become a zombie."""
        async with closed_afterwards(admin_client(self.settings)) as admin:
            for service in SERVICES:
                while not await self._is_shared(admin, service):  # noqa: ASYNC110  # the broker is asked
                    await asyncio.sleep(0.2)

    async def _is_shared(self, admin: AIOKafkaAdminClient, service: str) -> bool:
        try:
            (found,) = await admin.describe_consumer_groups([f"everloop-{service}"])
        except KafkaError:  # a restarted broker does not know its groups at once
            return False
        ((_, _, state, _, _, members, *_),) = found.groups
        return state == "Stable" and len(members) == sum(service_of(name) == service for name in self.members)

    async def restart_broker(self) -> None:
        """`kill -9` of the broker, a moment without one, and a new start on its data."""
        assert self.kafka.child is not None
        self.kafka.child.signal(signal.SIGKILL)
        assert await asyncio.to_thread(self.kafka.child.wait, 30)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(self.kafka.start)

    async def supervise(self) -> None:
        """Start again what has ended, for ever."""
        while True:
            for name, member in list(self.members.items()):
                if member.poll() is not None:
                    self.restarts[service_of(name)] += 1
                    self.join(name)
            await asyncio.sleep(0.3)

    def end(self) -> None:
        """Nothing stays behind."""
        for member in self.members.values():
            member.kill()
            member.wait()
        self.kafka.stop()

    def said(self) -> str:
        """The ends of the members' logs, for a failure's message."""
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in self._folder.glob("*.log"))


def service_of(name: str) -> str:
    """`ingest` of `ingest-2`."""
    return name.rsplit("-", 1)[0]


@asynccontextmanager
async def data_plane(folder: Path, session_ms: int = CALM_SESSION_MS) -> AsyncIterator[DataPlane]:
    """A broker that knows the pipeline, two members of each service, and their supervisor."""
    plane = DataPlane(folder, session_ms)
    supervisor: asyncio.Task[None] | None = None
    try:
        await asyncio.to_thread(plane.kafka.start)
        await plane.define()
        for service in SERVICES:
            for number in MEMBERS:
                plane.join(f"{service}-{number}")
        supervisor = asyncio.create_task(plane.supervise())
        yield plane
    finally:
        if supervisor is not None:
            supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await supervisor
        await asyncio.to_thread(plane.end)
