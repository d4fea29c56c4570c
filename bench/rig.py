"""What the benchmarks share: a broker and a process on cores of their own, topics, figures."""

import asyncio
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiokafka import TopicPartition
from everloop.embedded import Kafka
from everloop.embedded.ports import free_port
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import admin_client, committed_offsets, plain_producer
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import PipelineDefined
from everloop_schemas.pipeline import load, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

__all__ = [
    "ROOT", "Contender", "Row", "Rows", "Steady", "broker", "count", "cpu_seconds", "environment", "figure",
    "free_port", "keep", "peer_python", "pinned", "prepare", "progress", "publish", "show", "size", "steady",
    "version_in",
]  # fmt: skip

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 300.0
Row = tuple[bytes, bytes]
"""Key and value."""
Rows = Mapping[int, Sequence[Row]]
"""By partition."""


def size(rows: Rows) -> int:
    """How many there are."""
    return sum(map(len, rows.values()))


@dataclass
class Contender:
    """Somebody who reads one topic and writes another."""

    command: Sequence[str]
    group: str
    source: str
    target: str
    expected: Callable[[Rows], int] = size


@dataclass
class Steady:
    """What a contender does once it is warm."""

    per_cpu_second: float
    per_second: float
    megabytes_warm: float
    megabytes_end: float


@contextmanager
def broker(folder: Path) -> Iterator[KafkaSettings]:
    """A Kafka, off core 0, which is the measured process's own; and so is this process."""
    with Kafka(folder / "kafka", port=0) as kafka:
        cores = list(os.sched_getaffinity(0) - {0} or {0})
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            process.cpu_affinity(cores)
        yield KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


@contextmanager
def pinned(command: Sequence[str], log: Path, **environment: str) -> Iterator[psutil.Process]:
    """The measured process, alone on core 0; its output goes to a file, which is shown if it fails."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    watched = psutil.Process(child.pid)
    watched.cpu_affinity([0])
    try:
        yield watched
    except BaseException:
        print(log.read_text()[-4000:], file=sys.stderr)
        raise
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def environment(kafka: KafkaSettings) -> dict[str, str]:
    """What a service of ours reads, its HTTP port free."""
    services = ("INGEST", "FEATURE")
    return {
        "EVERLOOP_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        **{f"EVERLOOP_{name}_HTTP_PORT": "0" for name in services},
    }


def cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


async def prepare(kafka: KafkaSettings, text: str, more: Iterable[str] = (), revision: int = 1) -> int:
    """A pipeline's topics, further ones as widely partitioned, and the pipeline itself; its partitions."""
    pipeline = load(text)
    name, partitions = pipeline.pipeline, pipeline.partitions
    topics = {**platform_topics(), **pipeline_topics(name, partitions)}
    await ensure_topics(kafka, {**topics, **dict.fromkeys(more, (partitions, {}))})
    event = PipelineDefined.model_validate(
        {"pipeline": name, "version": revision, "definition": to_definition(pipeline), "sha256": "0" * 64,
         "partitions": partitions, "defined_at": "2013-01-01T00:00:00Z", "defined_by": "bench"}
    )  # fmt: skip
    value, headers = cloudevents.encode(event, id=str(revision), source="bench")
    async with plain_producer(kafka) as producer:
        await producer.send_and_wait(event.topic, value, name.encode(), headers=headers)
    return partitions


async def publish(
    kafka: KafkaSettings,
    topic: str,
    rows: Rows,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Rows by partition, by whole batches, the partitions in turn."""
    async with plain_producer(kafka) as producer:
        batches = [batches_of(producer, topic, number, part, headers) for number, part in rows.items()]
        await asyncio.gather(*batches)
        await producer.flush()


async def batches_of(producer, topic: str, partition: int, rows: Sequence[Row], headers) -> None:
    batch = producer.create_batch()
    for key, value in rows:
        if batch.append(timestamp=None, key=key, value=value, headers=headers) is None:
            await producer.send_batch(batch, topic, partition=partition)
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
    await producer.send_batch(batch, topic, partition=partition)


async def count(kafka: KafkaSettings, topic: str, partitions: int) -> int:
    """Committed records of a topic."""
    return sum(
        [
            len(page)
            for number in range(partitions)
            async for page in read_to_end(kafka, TopicPartition(topic, number))
        ]
    )


@asynccontextmanager
async def progress(
    kafka: KafkaSettings, group: str, topic: str, partitions: int
) -> AsyncIterator[Callable[[int], object]]:
    """A function that waits until a group has committed so many of a topic's offsets."""
    admin = admin_client(kafka)
    await admin.start()
    wanted = [TopicPartition(topic, number) for number in range(partitions)]

    async def reach(records: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while sum(offset for offset, _ in (await committed_offsets(admin, group, wanted)).values()) < records:
            if time.monotonic() > deadline:
                raise SystemExit(f"{group} has not handled {records} records in {PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(0.1)

    try:
        yield reach
    finally:
        await admin.close()


async def steady(
    kafka: KafkaSettings,
    who: Contender,
    warm: Rows,
    rest: Rows,
    *,
    headers: Sequence[tuple[str, bytes]],
    log: Path,
) -> Steady:
    """Let a contender work off `warm`, then measure it on `rest`; no row may be lost or doubled."""
    first, wanted, partitions = size(warm), size(rest), len(warm)
    async with progress(kafka, who.group, who.source, partitions) as reach:
        await publish(kafka, who.source, warm, headers)
        with pinned(who.command, log, **environment(kafka)) as process:
            await reach(first)
            await asyncio.sleep(2)
            before, began, warm_bytes = cpu_seconds(process), time.monotonic(), process.memory_info().rss
            await publish(kafka, who.source, rest, headers)
            await reach(first + wanted)
            used, took = cpu_seconds(process) - before, time.monotonic() - began
            end_bytes = process.memory_info().rss
    found, expected = await count(kafka, who.target, partitions), who.expected(warm) + who.expected(rest)
    if found != expected:
        raise SystemExit(f"{found} records on {who.target} instead of {expected}: not exactly once")
    return Steady(wanted / used, wanted / took, warm_bytes / 1e6, end_bytes / 1e6)


def peer_python(name: str, *packages: str) -> Path:
    """The interpreter of a peer's own environment, made with uv under bench/.peers. Raises OSError."""
    home = ROOT / "bench/.peers" / name
    python = home / "bin/python"
    if python.exists():
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    commands = (
        (uv, "venv", "-q", str(home)),
        (uv, "pip", "install", "-q", "--python", str(python), *packages),
    )
    for command in commands:
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OSError(f"{command[:2]}: {error}") from error
        if done.returncode:
            shutil.rmtree(home, ignore_errors=True)
            raise OSError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-300:]}")
    return python


def version_in(python: Path, package: str) -> str:
    """The version of a package in a peer's environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def figure(
    name: str,
    ours: float,
    unit: str,
    *,
    peer: float | None = None,
    peer_version: str | None = None,
    goal: float | None = None,
    at_most: bool = False,
    digits: int = 0,
) -> dict:
    """One figure. With a peer the goal is of the ratio, without one of the figure itself."""
    ratio = None if not peer else ours / peer
    reached = ours if peer_version is None else ratio
    met = None
    if goal is not None and reached is not None:
        met = reached <= goal if at_most else reached >= goal
    return {
        "name": name,
        "ours": round(ours, digits) if digits else round(ours),
        "peer": None if peer is None else round(peer, digits) if digits else round(peer),
        "peer_version": peer_version,
        "unit": unit,
        "ratio": None if ratio is None else round(ratio, 2),
        "goal": goal,
        "met": met,
    }


def keep(name: str, figures: Sequence[dict]) -> None:
    """Write bench/results/NAME.json."""
    python, busy = platform.python_version(), os.getloadavg()[1]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, load {busy:.1f}"
    path = ROOT / f"bench/results/{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "figures": list(figures)}, indent=2) + "\n")


def show(figures: Sequence[dict]) -> None:
    """Print the figures."""
    for each in figures:
        beside = f" (peer {each['peer']:,}, ratio {each['ratio']})" if each["peer"] else ""
        aim = "" if each["goal"] is None else f" goal {each['goal']:g}: {'met' if each['met'] else 'not met'}"
        print(f"{each['name']}: {each['ours']:,} {each['unit']}{beside}{aim}")
