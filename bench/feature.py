"""The feature service beside its peers, in one run: rows per CPU second, state, memory, latency.

    python bench/feature.py [--rows 300000] [--only ours,bare,quix,feast,flights,restore,latency]

The pipeline (10 fields, 4 expressions, 6 windowed aggregates, 5,000 keys, 2% late; 285-byte records) runs
exactly-once with its state in Kafka. A first part of the log is worked off to warm up; then the rest is
published at full speed, and the rate is rows over the CPU time of the process until they are all committed:
start-up is not counted. The process has core 0 to itself, Kafka and this script the others.
"""

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec
import rig
from aiokafka import TopicPartition
from everloop_feature.adapters.task import FeatureTask
from everloop_feature.application.pipelines import Pipelines
from everloop_kernel.kafka import plain_producer
from everloop_kernel.kafka_reading import read_to_end, started_reader
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load, to_definition
from feature_rows import (
    HEADERS,
    KEYS,
    LOG,
    PARTITIONS,
    PIPELINE,
    VECTORS,
    flights,
    observations,
    record,
    rows,
    state_rows,
)

PARTS = ("ours", "bare", "quix", "feast", "flights", "restore", "latency")
NUMBERS = itertools.count(10_000_000)
PEERS = Path(__file__).parent / "peers"
WARM_UP = 60_000
RESTORED = "restore-bench"
RESTORED_KEYS = 200_000


def ours(pipeline: str) -> rig.Contender:
    log, vectors = f"ingest-record-accepted-v1.{pipeline}", f"feature-vector-computed-v1.{pipeline}"
    return rig.Contender([sys.executable, "-m", "everloop_feature"], "everloop-feature", log, vectors)


def bare(kafka: KafkaSettings, mode: str) -> rig.Contender:
    source, target = f"bench-bare-{mode}-in", f"bench-bare-{mode}-out"
    script = str(PEERS / "bare_loop.py")
    command = [sys.executable, script, kafka.bootstrap_servers, source, target, mode]
    return rig.Contender(command, "bench-bare", source, target)


def quix(kafka: KafkaSettings, python: Path, folder: Path) -> rig.Contender:
    source, target = "bench-quix-in", "bench-quix-out"
    command = [
        str(python),
        str(PEERS / "quix.py"),
        kafka.bootstrap_servers,
        source,
        target,
        str(folder / "quix"),
    ]
    return rig.Contender(command, "bench-quix", source, target)


class Bench:
    """One run: a broker, and whoever is asked for, one after the other."""

    def __init__(self, kafka: KafkaSettings, folder: Path, rows: int) -> None:
        self.kafka = kafka
        self.folder = folder
        self.log = folder / "log"
        self.wanted = rows
        self.warm: rig.Rows = {}
        self.rest: rig.Rows = {}
        self.ours: rig.Steady | None = None

    async def prepare(self) -> None:
        peers = [
            f"bench-{name}-{side}" for name in ("bare-raw", "bare-msgspec", "quix") for side in ("in", "out")
        ]
        await rig.prepare(self.kafka, PIPELINE, peers)
        self.warm, self.rest = rows(0, WARM_UP), rows(WARM_UP, WARM_UP + self.wanted)

    async def steady(self, who: rig.Contender) -> rig.Steady:
        return await rig.steady(self.kafka, who, self.warm, self.rest, headers=HEADERS, log=self.log)

    async def run_ours(self) -> list[dict]:
        found = self.ours = await self.steady(ours("feature-bench"))
        grown = found.megabytes_end - found.megabytes_warm
        return [
            rig.figure("feature: rows per CPU second, exactly-once", found.per_cpu_second, "rows/CPU s"),
            rig.figure("feature: rows per second of the same run", found.per_second, "rows/s"),
            rig.figure("feature: resident memory", found.megabytes_end, "MB"),
            rig.figure(
                f"feature: resident memory grown over {self.wanted:,} rows of {KEYS:,} keys",
                grown, "MB", goal=30, at_most=True,
            ),
        ]  # fmt: skip

    async def run_bare(self) -> list[dict]:
        figures = []
        for mode, goal in (("raw", 0.7), ("msgspec", None)):
            found = await self.steady(bare(self.kafka, mode))
            name = f"aiokafka {version('aiokafka')}, tuned consume-produce loop without guarantees, {mode}"
            figures.append(self.beside(f"a bare loop, {mode}", found.per_cpu_second, name, goal))
        return figures

    async def run_quix(self) -> list[dict]:
        name, goal = "Quix Streams exactly-once", 3.0
        try:
            python = rig.peer_python("quix", "quixstreams")
        except OSError as error:
            print(f"Quix Streams cannot be had: {error}")
            return [self.beside(name, None, None, goal)]
        found = await self.steady(quix(self.kafka, python, self.folder))
        known = f"quixstreams {rig.version_in(python, 'quixstreams')}, exactly-once, state on RocksDB"
        return [self.beside(name, found.per_cpu_second, known, goal)]

    async def run_feast(self) -> list[dict]:
        name, goal = "Feast push to Redis in batches of 1,000", 4.0
        try:
            python = rig.peer_python("feast", "feast[redis]")
            rate = await asyncio.to_thread(push_with_feast, python, self.folder, self.log)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"Feast with Redis cannot be had: {error}")
            return [self.beside(name, None, None, goal)]
        return [self.beside(name, rate, f"feast {rig.version_in(python, 'feast')}, redis", goal)]

    async def run_flights(self) -> list[dict]:
        text = (rig.ROOT / "examples/flights/pipeline.yaml").read_text()
        await rig.prepare(self.kafka, text)
        chance = random.Random(1)
        warm = flights(chance, 0, WARM_UP)
        rest = flights(chance, WARM_UP, WARM_UP + self.wanted // 2)
        who = replace(ours("flight-delay"), expected=observations)
        found = await rig.steady(self.kafka, who, warm, rest, headers=HEADERS, log=self.log)
        name = "feature: the flights example, observations and labels, rows per CPU second"
        return [rig.figure(name, found.per_cpu_second, "rows/CPU s")]

    async def run_restore(self) -> list[dict]:
        await rig.prepare(self.kafka, PIPELINE.replace("feature-bench", RESTORED))
        await rig.publish(self.kafka, f"feature-state-changed-v1.{RESTORED}", {0: state_rows(RESTORED_KEYS)})
        command = [sys.executable, __file__, "--restore-of", self.kafka.bootstrap_servers]
        done = await asyncio.create_subprocess_exec("taskset", "-c", "0", *command, stdout=subprocess.PIPE)
        answer, _ = await done.communicate()
        name = f"feature: keys per second restored from the compacted topic ({RESTORED_KEYS:,} keys)"
        return [rig.figure(name, float(answer), "keys/s", goal=100_000)]

    async def run_latency(self) -> list[dict]:
        with rig.pinned(ours("feature-bench").command, self.log, **rig.environment(self.kafka)):
            delays = sorted(await latencies(self.kafka, rate=2_000, seconds=20))
        middle, worst = delays[len(delays) // 2], delays[int(len(delays) * 0.99)]
        name = "feature: observation in the log to vector readable, 2,000 a second"
        return [
            rig.figure(f"{name}, p50", middle * 1000, "ms", digits=1),
            rig.figure(f"{name}, p99", worst * 1000, "ms", goal=100, at_most=True, digits=1),
        ]

    def beside(self, name: str, rate: float | None, peer_version: str | None, goal: float | None) -> dict:
        mine = self.ours.per_cpu_second if self.ours else float("nan")
        return rig.figure(
            f"feature: rows per CPU second beside {name}", mine, "rows/CPU s",
            peer=rate, peer_version=peer_version or "not available", goal=goal,
        )  # fmt: skip


def push_with_feast(python: Path, folder: Path, log: Path) -> float:
    """Rows a CPU second. Raises OSError without a Redis."""
    port, repository = rig.free_port(), folder / "feast"
    repository.mkdir()
    options = ["--port", str(port), "--save", "", "--appendonly", "no"]
    with log.open("ab") as output:
        redis = subprocess.Popen(["redis-server", *options], stdout=output, stderr=output)
        try:
            command = ["taskset", "-c", "0", python, PEERS / "feast_push.py", str(port), repository, "50000"]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=output, text=True, check=True)
        finally:
            redis.terminate()
            redis.wait(10)
    return float(done.stdout.split()[-1])


async def restore(bootstrap: str) -> None:
    """Restore a partition's state as a lane does, and print the keys a second."""
    kafka = KafkaSettings(bootstrap_servers=bootstrap)
    pipelines = Pipelines(lambda _: None)
    pipelines.define(
        RESTORED, 1, json.dumps(to_definition(load(PIPELINE.replace("feature-bench", RESTORED)))).encode()
    )
    features = pipelines.features(RESTORED)
    task = FeatureTask(RESTORED, TopicPartition(f"ingest-record-accepted-v1.{RESTORED}", 0), features)
    began = time.monotonic()
    (source,) = task.restore_from()
    async for page in read_to_end(kafka, TopicPartition(source.topic, source.partition)):
        task.restore(page)
    print(features.keys / (time.monotonic() - began))


async def latencies(kafka: KafkaSettings, *, rate: int, seconds: int) -> list[float]:
    """Seconds from before an observation is sent to the log until its vector is read (read_committed)."""
    sent: dict[str, float] = {}
    delays: list[float] = []
    stop = asyncio.Event()
    reader = asyncio.create_task(read_vectors(kafka, sent, delays, stop))
    await asyncio.sleep(8)  # until the service is up and its lanes are open
    await send_steadily(kafka, rate, 5, {})
    await asyncio.sleep(1)
    await send_steadily(kafka, rate, seconds, sent)
    await asyncio.sleep(3)
    stop.set()
    await reader
    if len(delays) != len(sent):
        raise SystemExit(f"{len(sent)} observations and {len(delays)} vectors")
    return delays


async def send_steadily(kafka: KafkaSettings, rate: int, seconds: int, sent: dict[str, float]) -> None:
    """A hundredth of a second's records at a time, acknowledged by the broker meanwhile."""
    chance, encode, pending = random.Random(9), msgspec.json.Encoder().encode, set()
    async with plain_producer(kafka, linger_ms=0) as producer:
        began = time.monotonic()
        for tick in range(100 * seconds):
            await asyncio.sleep(max(0, began + tick / 100 - time.monotonic()))
            for _ in range(rate // 100):
                number = next(NUMBERS)
                value = record(chance, number)
                key = key_bytes([value["fields"]["plane"]])
                sent[value["id"]] = time.monotonic()
                pending.add(
                    await producer.send(
                        LOG, encode(value), key, partition=partition_of(key, PARTITIONS), headers=HEADERS
                    )
                )
            pending = {each for each in pending if not each.done()}
        await producer.flush()


async def read_vectors(
    kafka: KafkaSettings, sent: dict[str, float], delays: list[float], stop: asyncio.Event
) -> None:
    identifier = msgspec.json.Decoder(Identified).decode
    consumer = await started_reader(kafka, fetch_max_wait_ms=1000)
    try:
        partitions = [TopicPartition(VECTORS, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        while not stop.is_set():
            got = await consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            for records in got.values():
                ids = [identifier(each.value).id for each in records]
                delays += [now - sent[name] for name in ids if name in sent]
    finally:
        await consumer.stop()


class Identified(msgspec.Struct):
    id: str


async def run(rows: int, parts: Sequence[str]) -> list[dict]:
    with tempfile.TemporaryDirectory() as name, rig.broker(Path(name)) as kafka:
        bench = Bench(kafka, Path(name), rows)
        await bench.prepare()
        return [figure for part in parts for figure in await getattr(bench, f"run_{part}")()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--only", default=",".join(PARTS), help="parts of the run; the result is not kept")
    parser.add_argument("--restore-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.restore_of:
        asyncio.run(restore(arguments.restore_of))
        return
    parts = arguments.only.split(",")
    figures = asyncio.run(run(arguments.rows, parts))
    rig.show(figures)
    if parts == list(PARTS):
        rig.keep("feature", figures)


if __name__ == "__main__":
    main()
