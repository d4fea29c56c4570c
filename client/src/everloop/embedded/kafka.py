"""One Apache Kafka node in KRaft mode, as a child process of ours."""

import socket
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from everloop.embedded.children import Child, Program, remove_leftover, wait_until_ready
from everloop.embedded.jars import Progress, cache_folder, ensure_jars, locked_cache
from everloop.embedded.java import Java, find_java
from everloop.embedded.ports import free_port, require_free
from everloop.errors import EverloopError

__all__ = ["Kafka", "KafkaRuntime", "prepare_kafka"]

_CLUSTER_ID = "ZXZlcmxvb3AtbG9jYWwtMQ"  # 16 bytes in base64: one node, one cluster
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_RECORD_SECONDS = 60.0
_API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""Length, key, version, correlation id, no client id: the smallest question that a serving broker answers."""

_LOGGING = (
    "-Dlog4j2.statusLoggerLevel=OFF",  # it misses a provider that Kafka itself does not log through
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

_SETTINGS: Mapping[str, str] = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # after kill -9 the controller holds the old session for this long: 9 s by default
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "1000",
    # the controller writes a record when it idles this long: 0.5 s by default, which costs CPU
    "metadata.max.idle.interval.ms": "5000",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    # a stack that rests for a month must not forget where it was: 7 days by default
    "offsets.retention.minutes": "5256000",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    # how often timed-out transactions, which hold readers back, are looked for: 10 s by default
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "message.max.bytes": "4194304",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


@dataclass(frozen=True, slots=True)
class KafkaRuntime:
    """What runs Kafka: a JVM, the jars and, once it was recorded, a class-data cache."""

    java: Java
    jars: tuple[Path, ...]

    @property
    def class_cache(self) -> Path:
        """Fits one Java version; another one gets its own."""
        return cache_folder() / f"classes-{self.java.version}.cache"

    def command(self, main: str, *arguments: str, flags: Sequence[str] = ()) -> list[str]:
        """The command line of one of Kafka's main classes."""
        flags = flags or self.java.flags()
        if self.class_cache.exists():
            flags = [*flags, self.java.use_classes(self.class_cache)]
        return self._line(flags, main, arguments)

    def recording(self, cache: Path, *arguments: str) -> list[str]:
        """The command line of a broker that writes the class-data cache when it ends."""
        return self._line([*self.java.flags(), self.java.record_classes(cache)], "kafka.Kafka", arguments)

    def _line(self, flags: Sequence[str], main: str, arguments: Sequence[str]) -> list[str]:
        return [str(self.java.command), *flags, *_LOGGING, "-cp", self._classpath(), main, *arguments]

    def _classpath(self) -> str:
        return ":".join(map(str, self.jars))


def prepare_kafka(progress: Progress | None = None) -> KafkaRuntime:
    """Have the jars and the class-data cache at hand: seconds the first time, 0.1 s after that."""
    runtime = KafkaRuntime(find_java(), tuple(ensure_jars(progress)))
    if not runtime.class_cache.exists():
        with locked_cache():
            if not runtime.class_cache.exists():
                _record_classes(runtime)
    return runtime


def _record_classes(runtime: KafkaRuntime) -> None:
    """Run a broker once on a throw-away folder: later starts take 0.7 s in place of 2.7."""
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=".record-") as folder:
        written = Path(folder) / "classes.cache"
        with Kafka(
            Path(folder) / "broker", port=0, fsync=False, runtime=runtime, record_to=written
        ) as broker:
            broker.stop(_RECORD_SECONDS)
        if written.exists():  # a JVM that could not write it only starts more slowly
            written.replace(runtime.class_cache)


@dataclass
class Kafka:
    """A broker on the loopback, with its data in one folder.

    Args:
        data_dir: holds the log, server.properties, kafka.log and the pid file; reused at the next start.
        port: 0 takes a free one.
        fsync: flush each batch to disk before it is acknowledged.
        throughput: leave the JVM's optimising compiler on: more memory, more records a second.
        log: where its output goes; a file in data_dir by default.
        settings: server.properties entries that win over ours.
        protocol: what clients speak; anything but PLAINTEXT needs `settings` that say who they are.
        scram_users: passwords by name, for SCRAM-SHA-256 and SCRAM-SHA-512; written into a new folder.
    """

    data_dir: Path
    port: int = 9092
    fsync: bool = True
    heap_megabytes: int = 256
    throughput: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    scram_users: Mapping[str, str] = field(default_factory=dict, repr=False)
    runtime: KafkaRuntime | None = None
    record_to: Path | None = None
    log: Path | None = None
    child: Child | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.data_dir = self.data_dir.absolute()
        self.port = self.port or free_port()

    @property
    def bootstrap_servers(self) -> str:
        """What a client connects to."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Launch it, and wait until it answers."""
        wait_until_ready(self.launch(), self.answers, _READY_SECONDS)
        return self

    def launch(self) -> Child:
        """Fetch what is missing, format a new folder, and start the process without waiting for it."""
        runtime = self.runtime = self.runtime or prepare_kafka()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.end_leftover()
        require_free(self.port, "Kafka", "--kafka-port or EVERLOOP_STACK_KAFKA_PORT")
        properties = self._write_properties()
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(runtime, properties)
        self.child = Child(self._program(runtime, properties))
        return self.child

    def stop(self, patience_seconds: float = _STOP_SECONDS) -> None:
        """Shut down in order; kill after the patience."""
        if self.child is not None:
            self.child.stop(patience_seconds)
            self.child = None

    def end_leftover(self) -> bool:
        """End the server that an earlier life left behind; true when there was one."""
        return remove_leftover(self.data_dir / "kafka.pid")

    def answers(self) -> bool:
        """Whether the broker serves clients: it answers nothing before it is unfenced."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(_API_VERSIONS)
                return len(connection.recv(8)) > 0
        except OSError:
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _write_properties(self) -> Path:
        controller = free_port()
        listeners = {
            "listeners": f"{self.protocol}://{self.bootstrap_servers},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"{self.protocol}://{self.bootstrap_servers}",
            "listener.security.protocol.map": f"{self.protocol}:{self.protocol},CONTROLLER:PLAINTEXT",
            "security.inter.broker.protocol": self.protocol,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(self.data_dir / "log"),
        }
        flush = {"log.flush.interval.messages": "1"} if self.fsync else {}
        entries = {**_SETTINGS, **listeners, **flush, **self.settings}
        path = self.data_dir / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in entries.items()))
        return path

    def _format(self, runtime: KafkaRuntime, properties: Path) -> None:
        users = [
            f"--add-scram={mechanism}=[name={name},password={password}]"
            for name, password in self.scram_users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
        ]
        arguments = ("format", "-t", _CLUSTER_ID, "-c", str(properties), "--ignore-formatted", *users)
        command = runtime.command("kafka.tools.StorageTool", *arguments)
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
        if result.returncode:
            said = [
                line for line in (result.stdout + result.stderr).splitlines() if not line.startswith("\t")
            ]
            raise EverloopError(
                f"Kafka could not format {self.data_dir}: {' '.join(said)[:600]}",
                "Look at the settings, and at the folder's permissions and free space.",
            )

    def _program(self, runtime: KafkaRuntime, properties: Path) -> Program:
        flags = runtime.java.flags(heap_megabytes=self.heap_megabytes, throughput=self.throughput)
        command = runtime.command("kafka.Kafka", str(properties), flags=flags)
        if self.record_to is not None:
            command = runtime.recording(self.record_to, str(properties))
        folder = self.data_dir
        return Program("Kafka", command, log=self.log or folder / "kafka.log", pid_file=folder / "kafka.pid")
