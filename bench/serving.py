# ruff: noqa: E501  # a script that prints tables
"""Requests per second of serving on one core: features computed from state, prediction events published.

    python bench/serving.py [--seconds 5] [--trees 300 --leaves 63] [--no-peer]

The server runs on core 0; the load and Kafka on the others. The peer, a naive FastAPI + Booster that is given
ready features and records nothing, is measured in the same run, in an environment of its own under
bench/.peers, made with uv. Each side is measured three times in turn; the medians count.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import lightgbm
import load
import numpy as np
import psutil
from everloop.embedded import Kafka
from everloop_features import Encoder, compile, learn_categories  # noqa: A004
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load as load_pipeline
from everloop_schemas.pipeline import to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from integration.serving.deployed_model import Signer, packed, reference  # noqa: E402
from integration.serving.serving_process import ServingProcess, free_port, publish  # noqa: E402

NAME = "flight-delay"
START = datetime(2013, 1, 1, tzinfo=UTC)
CONNECTIONS = (1, 16, 64)
GOAL_REQUESTS_PER_SECOND = 4_000
GOAL_SECONDS_TO_READY = 3
CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"]


def observation(rng: random.Random, minute: int) -> dict:
    return {
        "origin": rng.choice(["EWR", "JFK", "LGA"]),
        "carrier": rng.choice(CARRIERS),
        "dest": f"D{rng.randrange(100):02d}",
        "distance": float(rng.randrange(80, 5000)),
        "plane_year": rng.choice([None, float(rng.randrange(1960, 2013))]),
        "seats": float(rng.randrange(20, 400)),
        "temperature": rng.uniform(10, 90),
        "humidity": rng.uniform(10, 100),
        "wind": rng.uniform(0, 40),
        "precipitation": rng.choice([0.0, 0.0, 0.1]),
        "visibility": 10.0,
        "pressure": rng.uniform(990, 1040),
        "scheduled_departure": (START + timedelta(minutes=minute)).isoformat(),
    }


def body(fields: dict, number: int) -> bytes:
    inputs = [
        {"name": name, "datatype": "BYTES" if isinstance(v, str) else "FP64", "shape": [1], "data": [v]}
        for name, v in fields.items()
    ]
    return json.dumps({"id": f"r{number}", "inputs": inputs}).encode()


class World:
    """Synthetic flights: state, vectors, a trained model and its artifact."""

    def __init__(self, trees: int, leaves: int, rows: int = 6000) -> None:
        text = (ROOT / "examples/flights/pipeline.yaml").read_text()
        self.pipeline = load_pipeline(text)
        compiled = compile(self.pipeline)
        rng = random.Random(7)
        states = [compiled.new_state(1).begin() for _ in range(self.pipeline.partitions)]
        vectors, self.observations = [], []
        for number in range(rows):
            fields = observation(rng, number // 4)
            time_us = round((START + timedelta(minutes=number // 4)).timestamp() * 1e6)
            self.observations.append(fields)
            key = key_bytes([fields["origin"]])
            overlay = states[partition_of(key, self.pipeline.partitions)]
            vectors.append(compiled.vector(fields, time_us, overlay))
            overlay.observe(f"o{number}", fields, time_us, time_us)
            label = {"origin": fields["origin"], "arrival_delay": rng.gauss(5, 30)}
            overlay.absorb_label(f"o{number}", label, time_us, time_us)
        self.changes = [list(overlay.changes()) for overlay in states]
        self._train(compiled, vectors, trees, leaves)

    def _train(self, compiled, vectors: list, trees: int, leaves: int) -> None:
        categories = learn_categories(vectors, compiled.types)
        features = [
            {"name": n, "type": t, **({"categories": c} if c is not None else {})}
            for n, t, c in zip(compiled.names, compiled.types, categories, strict=True)
        ]
        encoder = Encoder(features)
        self.matrix = np.array([encoder.row(vector) for vector in vectors])
        target = np.random.default_rng(1).random(len(vectors)) < 0.3
        options = {
            "objective": "binary",
            "num_leaves": leaves,
            "min_data_in_leaf": 20,
            "num_threads": 1,
            "verbose": -1,
        }
        kinds = [i for i, t in enumerate(compiled.types) if t == "category"]
        data = lightgbm.Dataset(self.matrix, target.astype(float), categorical_feature=kinds)
        booster = lightgbm.train(options, data, trees)
        self.model_text = booster.model_to_string()
        outputs = booster.predict(self.matrix[:20])
        manifest = {
            "format": 1, "pipeline": NAME, "pipeline_version": 1, "task": "binary", "features": features,
            "definition": to_definition(self.pipeline),
            "golden": [{"values": v, "output": float(o)} for v, o in zip(vectors, outputs, strict=False)],
        }  # fmt: skip
        self.artifact = packed(manifest, self.model_text.encode())

    async def publish(self, kafka: KafkaSettings, signer: Signer) -> None:
        await ensure_topics(kafka, {**platform_topics(), **pipeline_topics(NAME, self.pipeline.partitions)})
        producer = plain_producer(kafka)
        await producer.start()
        for partition, changes in enumerate(self.changes):
            for key, value in changes:
                await producer.send(f"feature-state-changed-v1.{NAME}", value, key, partition)
        await producer.flush()
        await producer.stop()
        await publish(kafka, signer.deployment(NAME, 1, reference(self.artifact, 1)), self.artifact)


@dataclass
class Measured:
    """What one side did at one concurrency, of each round."""

    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


Sides = dict[int, Measured]


def measure(label: str, where: tuple[int, int], requests: list[bytes], seconds: float, found: Sides) -> None:
    """Add a round; the server's own CPU time per request tells more on a busy machine."""
    pid, port = where
    process = psutil.Process(pid)
    for connections in CONNECTIONS:
        before = process.cpu_times()
        figures = load.run(port, requests, connections, seconds)
        after = process.cpu_times()
        if figures.errors:
            raise SystemExit(f"{label}: {figures.errors} requests failed")
        spent = after.user + after.system - before.user - before.system
        each = spent / figures.answered * 1e6
        print(f"{label:14} concurrency {connections:2}: {figures}   {each:5.0f} µs CPU each", flush=True)
        row = found.setdefault(connections, Measured())
        row.rates.append(figures.requests_per_second)
        row.p50_ms.append(figures.p50_ms)
        row.p99_ms.append(figures.p99_ms)
        row.cpu_us.append(each)


def start_and_time(serving: ServingProcess, what: str, figures: list[dict]) -> None:
    """Add the seconds from the start to readiness, and the CPU time of serving and its sandbox in them."""
    began = time.monotonic()
    live = serving.start()
    serving.wait_for(f"/v2/models/{NAME}/ready")
    serving.wait_for("/health/ready")
    ready = time.monotonic() - began
    cpu = sum(psutil.Process(serving.pid).cpu_times()[:4])
    print(f"{what}: live after {live:.2f} s, ready after {ready:.2f} s, {cpu:.2f} s of CPU")
    goal = {"goal": GOAL_SECONDS_TO_READY, "met": ready <= GOAL_SECONDS_TO_READY}
    figures += [
        figure(f"serving, {what}: seconds to ready", [ready], None, None, "s") | goal,
        figure(f"serving, {what}: CPU of serving and its sandbox", [cpu], None, None, "s"),
    ]


@contextmanager
def ours(world: World, figures: list[dict]) -> Iterator[ServingProcess]:
    """Serving with its model, on a Kafka of its own; its starts are measured."""
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder) / "kafka", port=0) as broker:
        signer = Signer()
        signer.trust_in(Path(folder) / "data" / "keys")
        asyncio.run(world.publish(KafkaSettings(bootstrap_servers=broker.bootstrap_servers), signer))
        serving = ServingProcess(broker.bootstrap_servers, Path(folder) / "data")
        start_and_time(serving, "first start, the model fetched from Kafka", figures)
        serving.stop()
        start_and_time(serving, "restart", figures)
        psutil.Process(serving.pid).cpu_affinity([0])
        try:
            yield serving
        finally:
            serving.stop()


def our_requests(world: World) -> list[bytes]:
    path = f"/v2/models/{NAME}/infer"
    return [load.http_post(path, body(fields, i)) for i, fields in enumerate(world.observations[-2000:])]


def check_published(serving: ServingProcess) -> None:
    """Every answer is an event on Kafka: a bench that loses them would measure something else."""
    time.sleep(2)
    metrics = httpx.get(serving.url + "/metrics").text
    wanted = ("everloop_serving_published", "everloop_serving_dropped", "everloop_serving_predictions_total")
    print("\n".join(line for line in metrics.splitlines() if line.startswith(wanted)))


def peer_environment() -> Path:
    home = ROOT / "bench" / ".peers" / "naive"
    if not home.exists():
        subprocess.run(["uv", "venv", "-q", str(home)], check=True)
        packages = ["fastapi", "uvicorn[standard]", "lightgbm", "numpy", "scipy"]
        install = ["uv", "pip", "install", "-q", "--python", str(home / "bin/python"), *packages]
        subprocess.run(install, check=True)
    return home / "bin/python"


def peer_version(python: Path) -> str:
    code = "from importlib.metadata import version as v; print('FastAPI', v('fastapi'), 'LightGBM', v('lightgbm'))"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def naive(world: World, python: Path) -> Iterator[tuple[int, int]]:
    """The peer's pid and port."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as model:
        model.write(world.model_text)
        model.flush()
        script = Path(__file__).parent / "peers" / "naive_fastapi.py"
        peer = subprocess.Popen(
            [python, script, model.name, str(port)], env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            psutil.Process(peer.pid).cpu_affinity([0])
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield peer.pid, port
        finally:
            peer.terminate()
            peer.wait()


def peer_requests(world: World) -> list[bytes]:
    requests = []
    for number, row in enumerate(world.matrix[-2000:]):
        data = [None if np.isnan(v) else v for v in row.tolist()]
        tensor = {"name": "row", "datatype": "FP64", "shape": [1, len(data)], "data": data}
        text = json.dumps({"id": f"r{number}", "inputs": [tensor]}).encode()
        requests.append(load.http_post("/v2/models/flights/infer", text))
    return requests


def figure(name: str, mine: list[float], theirs: list[float] | None, version: str | None, unit: str) -> dict:
    own = statistics.median(mine)
    other = statistics.median(theirs) if theirs else None
    return {
        "name": name, "ours": round(own, 2), "peer": other and round(other, 2), "peer_version": version,
        "unit": unit, "ratio": other and round(own / other, 2), "goal": None, "met": None,
    }  # fmt: skip


def figures_of(mine: Sides, theirs: Sides, version: str | None, memory_bytes: int) -> list[dict]:
    rows = []
    for connections, row in mine.items():
        peer = theirs.get(connections, Measured())
        where = f"serving, HTTP OIP JSON, 1 row, concurrency {connections}"
        rows += [
            figure(f"{where}: requests per second", row.rates, peer.rates, version, "requests/s"),
            figure(f"{where}: p50", row.p50_ms, peer.p50_ms, version, "ms"),
            figure(f"{where}: p99", row.p99_ms, peer.p99_ms, version, "ms"),
            figure(f"{where}: CPU per request", row.cpu_us, peer.cpu_us, version, "µs"),
        ]
        if connections == 16:
            rows[-4] |= {
                "goal": GOAL_REQUESTS_PER_SECOND,
                "met": rows[-4]["ours"] >= GOAL_REQUESTS_PER_SECOND,
            }
    return [*rows, figure("serving: resident memory", [memory_bytes / 1e6], None, None, "MB")]


def run_rounds(world: World, options: argparse.Namespace) -> list[dict]:
    python = peer_environment() if options.peer else None
    mine: Sides = {}
    theirs: Sides = {}
    starts: list[dict] = []
    with (
        ours(world, starts) as serving,
        naive(world, python) if python else nullcontext((0, 0)) as (pid, port),
    ):
        for _ in range(options.rounds):
            measure("everloop", (serving.pid, serving.port), our_requests(world), options.seconds, mine)
            if python:
                measure("naive FastAPI", (pid, port), peer_requests(world), options.seconds, theirs)
        memory = psutil.Process(serving.pid).memory_info().rss
        check_published(serving)
    return figures_of(mine, theirs, peer_version(python) if python else None, memory) + starts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--leaves", type=int, default=63)
    parser.add_argument("--no-peer", dest="peer", action="store_false")
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})
    world = World(options.trees, options.leaves)
    shape = f"{len(world.matrix[0])} features, {options.trees} trees x {options.leaves} leaves"
    print(f"flights pipeline, {shape}; rows rotate")
    figures = run_rounds(world, options)
    busy = f"load {os.getloadavg()[1]:.1f}"
    machine = (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {busy}; {shape}"
    )
    path = ROOT / "bench/results/serving.json"
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2, ensure_ascii=False) + "\n")
    for row in figures:
        print(f"{row['name']}: {row['ours']:,} {row['unit']} (peer {row['peer']}, ratio {row['ratio']})")


if __name__ == "__main__":
    main()
