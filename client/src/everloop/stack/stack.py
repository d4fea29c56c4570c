"""Start everything in order, keep it running, stop it in the opposite order."""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import platform_topics

from everloop.addresses import Addresses
from everloop.embedded.children import Child, Program
from everloop.embedded.kafka import Kafka
from everloop.embedded.openmp import search_path
from everloop.embedded.ports import require_free
from everloop.embedded.postgres import Postgres
from everloop.embedded.usage import descendants_memory_bytes
from everloop.errors import EverloopError
from everloop.lag import lag_by_group
from everloop.stack.folder import STACK_VARIABLE, DataFolder, ProcessRecord, StackRecord
from everloop.stack.settings import SERVICES, Ports, ServiceSpec, setting_of
from everloop.stack.supervisor import Supervised, Supervisor, stop_together

__all__ = ["Stack", "Usage"]

_READY_SECONDS = 90.0
_SERVICES_STOP_SECONDS = 20.0
_SERVERS_STOP_SECONDS = 8.0
_PROBE_SECONDS = 2.0
_SERVERS = ("kafka", "postgres")
_SERVICE_NAMES = tuple(spec.name for spec in SERVICES)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process takes."""

    pid: int
    memory_bytes: int
    cpu_seconds: float
    restarts: int


class Stack:
    """A context manager, sync and async: inside it, everything runs and is ready.

    Args:
        data_dir: all data, logs and keys; a later stack goes on from it.
        ports: where everything listens; `Ports.free()` for a stack beside others.
        fsync: whether Kafka and PostgreSQL flush to disk before they acknowledge.
        env: added to the environment of every service.
        services: which of the six to run.
        tell: called with a process's name and what happened to it, in words.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        ports: Ports | None = None,
        fsync: bool = True,
        env: Mapping[str, str] | None = None,
        services: Sequence[str] | None = None,
        tell: Callable[[str, str], None] | None = None,
    ) -> None:
        self.folder = DataFolder(data_dir)
        self.ports = ports or Ports()
        self.names = tuple(services) if services is not None else _SERVICE_NAMES
        self._env = dict(env or {})
        path = self.folder.path
        # a stack runs for days: what the compiler takes in its first minute comes back many times
        self._kafka = Kafka(
            path / "kafka", self.ports.kafka, fsync, throughput=True, log=self._log_of("kafka")
        )
        self._postgres = Postgres(path / "postgres", self.ports.postgres, fsync, log=self._log_of("postgres"))
        self._ready = False
        self._http = httpx.Client(timeout=_PROBE_SECONDS)
        self._tell = tell or (lambda _name, _what: None)
        self._supervisor = Supervisor(self._tell, self._record)

    @property
    def addresses(self) -> Addresses:
        """Where everything listens."""
        own = {name: f"http://127.0.0.1:{getattr(self.ports, name)}" for name in _SERVICE_NAMES}
        return Addresses(
            kafka=self._kafka.bootstrap_servers,
            postgres=self._postgres.dsn,
            serving_grpc=f"127.0.0.1:{self.ports.serving_grpc}",
            **own,
        )

    @property
    def logs_dir(self) -> Path:
        """One log file a process."""
        return self.folder.logs

    def memory_bytes(self) -> int:
        """Of all processes together, a shared page counted once."""
        return descendants_memory_bytes()

    async def lag(self) -> int:
        """Records that the services have yet to handle, all groups together."""
        kafka = KafkaSettings(bootstrap_servers=self._kafka.bootstrap_servers)
        return sum((await lag_by_group(kafka)).values())

    @property
    def services(self) -> dict[str, Usage]:
        """What each running process takes, Kafka and PostgreSQL among them."""
        running = [(one, one.child) for one in self._supervisor.processes if one.child is not None]
        return {
            one.name: Usage(child.pid, child.memory_bytes(), child.cpu_seconds(), one.restarts)
            for one, child in running
        }

    def start(self) -> Self:
        """Start everything and wait until it is ready; what was started stops again if something fails."""
        self.folder.hold()
        try:
            self._bring_up()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the services, then Kafka and PostgreSQL; within 30 s nothing runs any more."""
        self._supervisor.end()
        servers = [one for one in self._supervisor.processes if one.name in _SERVERS]
        services = [one for one in self._supervisor.processes if one.name not in _SERVERS]
        stop_together(services, _SERVICES_STOP_SECONDS)
        stop_together(servers, _SERVERS_STOP_SECONDS)
        self.folder.end_leftovers()
        self.folder.release()
        self._http.close()

    def environment(self, service: str) -> dict[str, str]:
        """What a service is told: its addresses, the data folder, and what the caller added."""
        prefix = f"EVERLOOP_{service.upper()}"
        own = {f"{prefix}_HTTP_HOST": "127.0.0.1", f"{prefix}_HTTP_PORT": str(getattr(self.ports, service))}
        if service == "serving":
            own["EVERLOOP_SERVING_GRPC_PORT"] = str(self.ports.serving_grpc)
        return {
            "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": self._kafka.bootstrap_servers,
            "EVERLOOP_POSTGRES_DSN": self._postgres.dsn,
            "EVERLOOP_DATA_DIR": str(self.folder.path),
            STACK_VARIABLE: str(self.folder.path),
            **search_path(),
            **own,
            **self._env,
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _bring_up(self) -> None:
        self.folder.end_leftovers()
        self.folder.require_space()
        servers = self._supervised_servers()
        self._require_ports()
        self._supervisor.begin()
        self._supervisor.bring_up(servers, _READY_SECONDS)
        self._postgres.create_database()
        kafka = KafkaSettings(bootstrap_servers=self._kafka.bootstrap_servers)
        asyncio.run(ensure_topics(kafka, platform_topics()))
        for stage in sorted({spec.stage for spec in SERVICES}):
            wanted = [spec for spec in SERVICES if spec.stage == stage and spec.name in self.names]
            self._supervisor.bring_up([self._supervised(spec) for spec in wanted], _READY_SECONDS)
        self._ready = True
        self._record()

    def _require_ports(self) -> None:
        taken: dict[int, str] = {}
        for name, port in self.ports.of(self.names).items():
            if port in taken:
                raise EverloopError(
                    f"Port {port} is wanted for {taken[port]} and for {name}.",
                    f"Change one with {setting_of(name)}.",
                )
            taken[port] = name
            require_free(port, name, setting_of(name))

    def _supervised_servers(self) -> list[Supervised]:
        self._kafka.end_leftover()
        self._postgres.end_leftover()
        return [
            Supervised("kafka", self._kafka.launch, self._kafka.answers, self._log_of("kafka")),
            Supervised("postgres", self._postgres.launch, self._postgres.answers, self._log_of("postgres")),
        ]

    def _supervised(self, spec: ServiceSpec) -> Supervised:
        program = Program(
            spec.name,
            [sys.executable, "-m", f"everloop_{spec.name}"],
            log=self._log_of(spec.name),
            pid_file=self.folder.path / "run" / f"{spec.name}.pid",
            env=self.environment(spec.name),
        )
        url = f"{self.addresses.of(spec.name)}/health/ready"
        return Supervised(spec.name, lambda: Child(program), lambda: self._answers(url), program.log)

    def _answers(self, url: str) -> bool:
        """Whether a service says that it is ready."""
        try:
            return self._http.get(url).is_success
        except httpx.HTTPError:
            return False

    def _log_of(self, name: str) -> Path:
        return self.folder.logs / f"{name}.log"

    def _record(self) -> None:
        processes = {
            one.name: ProcessRecord(one.child.pid if one.child else None, one.restarts, str(one.log))
            for one in list(self._supervisor.processes)
        }
        self.folder.write(StackRecord(os.getpid(), self._ready, asdict(self.addresses), processes))
