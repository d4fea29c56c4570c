# ruff: noqa: E501  # a script that prints tables
"""Requests per second of serving on one core: features computed from state, prediction events published.

    python bench/serving.py [--seconds 5] [--trees 300 --leaves 63] [--peers MLServer KServe ...]

The server runs on core 0; the load and Kafka on the others. The peers (serving_peers.py) are measured in the
same run, each in an environment of its own under bench/.peers. Everloop and MLServer are measured three times in
turn, the other peers once each beside Everloop; medians count. `--peers` alone measures Everloop only.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import lightgbm
import load
import numpy as np
import psutil
import rig
from everloop.embedded import Kafka
from everloop_features import Encoder, compile, learn_categories  # noqa: A004
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load as load_pipeline
from everloop_schemas.pipeline import to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics
from serving_peers import PEERS, running, tree_cpu_seconds

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from integration.serving.deployed_model import Signer, packed, reference  # noqa: E402
from integration.serving.serving_process import ServingProcess, publish  # noqa: E402

NAME = "flight-delay"
START = datetime(2013, 1, 1, tzinfo=UTC)
CONNECTIONS = (1, 16, 64)
MANY_ROWS = 100
GOAL_SECONDS_TO_READY = 2
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


def body_of_many(rows: Sequence[dict], number: int) -> bytes:
    inputs = [
        {
            "name": name,
            "datatype": "BYTES" if isinstance(rows[0][name], str) else "FP64",
            "shape": [len(rows)],
            "data": [row[name] for row in rows],
        }
        for name in rows[0]
    ]
    return json.dumps({"id": f"m{number}", "inputs": inputs}).encode()


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
    """What one side did with requests of one size at one concurrency, of each round."""

    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def medians(self) -> tuple[float, ...]:
        return tuple(map(statistics.median, (self.rates, self.p50_ms, self.p99_ms, self.cpu_us)))


Sides = dict[tuple[int, int], Measured]
"""By rows of a request and concurrency."""
PLAN = ((1, 1), (1, 16), (1, 64), (MANY_ROWS, 16))


def measure(
    label: str,
    where: tuple[psutil.Process, int],
    requests: dict[int, list[bytes]],
    seconds: float,
    found: Sides,
) -> None:
    """Add a round; the server's own CPU time per request tells more on a busy machine."""
    process, port = where
    for each, connections in PLAN:
        before = tree_cpu_seconds(process)
        figures = load.run(port, requests[each], connections, seconds)
        spent = (tree_cpu_seconds(process) - before) / figures.answered * 1e6
        if figures.errors:
            raise SystemExit(f"{label}: {figures.errors} requests failed")
        print(
            f"{label:9} {each:3} rows, concurrency {connections:2}: {figures}   {spent:6.0f} µs CPU each",
            flush=True,
        )
        row = found.setdefault((each, connections), Measured())
        row.rates.append(figures.requests_per_second)
        row.p50_ms.append(figures.p50_ms)
        row.p99_ms.append(figures.p99_ms)
        row.cpu_us.append(spent)


def start_and_time(serving: ServingProcess, what: str, figures: list[dict]) -> None:
    """Add the seconds from the start to readiness, and the CPU time of serving and its sandbox in them."""
    began = time.monotonic()
    live = serving.start()
    serving.wait_for(f"/v2/models/{NAME}/ready")
    serving.wait_for("/health/ready")
    ready = time.monotonic() - began
    cpu = sum(psutil.Process(serving.pid).cpu_times()[:4])
    print(f"{what}: live after {live:.2f} s, ready after {ready:.2f} s, {cpu:.2f} s of CPU")
    goal = GOAL_SECONDS_TO_READY
    figures += [
        rig.figure(f"serving, {what}: seconds to ready", ready, "s", goal=goal, at_most=True, digits=2),
        rig.figure(f"serving, {what}: CPU of serving and its sandbox", cpu, "s", digits=2),
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


def our_requests(world: World, each: int) -> list[bytes]:
    path = f"/v2/models/{NAME}/infer"
    chosen = world.observations[-2000:]
    if each == 1:
        return [load.http_post(path, body(fields, i)) for i, fields in enumerate(chosen)]
    parts = [chosen[at : at + each] for at in range(0, len(chosen), each)]
    return [load.http_post(path, body_of_many(part, number)) for number, part in enumerate(parts)]


def ready_rows(world: World) -> list[list[float | None]]:
    """What the peers are asked with: features, computed for them beforehand."""
    return [[None if np.isnan(v) else v for v in row] for row in world.matrix[-2000:].tolist()]


def check_published(serving: ServingProcess) -> None:
    """Every answer is an event on Kafka: a bench that loses them would measure something else."""
    time.sleep(2)
    metrics = httpx.get(serving.url + "/metrics").text
    wanted = ("everloop_serving_published", "everloop_serving_dropped", "everloop_serving_predictions_total")
    print("\n".join(line for line in metrics.splitlines() if line.startswith(wanted)))


def without_peer(mine: Sides, memory_bytes: int) -> list[dict]:
    """What Everloop does, side by side with nobody."""
    rows = []
    for (each, connections), row in mine.items():
        where = f"serving, HTTP OIP JSON, {each} row{'s' if each > 1 else ''}, concurrency {connections}"
        rate, p50, p99, cpu = row.medians()
        rows += [
            rig.figure(f"{where}: requests per second", rate, "requests/s"),
            rig.figure(f"{where}: p50", p50, "ms", digits=2),
            rig.figure(f"{where}: p99", p99, "ms", digits=2),
            rig.figure(f"{where}: CPU per request", cpu, "µs"),
        ]
    return [*rows, rig.figure("serving: resident memory", memory_bytes / 1e6, "MB", goal=150, at_most=True)]


def beside(mine: Sides, theirs: Sides, version: str, goals: dict[tuple, tuple[float, bool]]) -> list[dict]:
    """Our figures over a peer's; `goals` are of the ratio, with whether it is a highest one."""
    rows = []
    for (each, connections), row in theirs.items():
        where = f"{each} row{'s' if each > 1 else ''}, concurrency {connections}"
        for what, unit, own, other in zip(
            ("requests per second", "p50", "p99", "CPU per request"),
            ("requests/s", "ms", "ms", "µs"),
            mine[each, connections].medians(),
            row.medians(),
            strict=True,
        ):
            goal, at_most = goals.get((each, connections, what), (None, False))
            rows.append(
                rig.figure(
                    f"beside {version.partition(' ')[0]}, HTTP, {where}: {what}", own, unit,
                    peer=other, peer_version=version, goal=goal, at_most=at_most, digits=2,
                )
            )  # fmt: skip
    return rows


MLSERVER_GOALS = {
    (1, 16, "requests per second"): (8.0, False),
    (1, 16, "p99"): (1 / 6, True),
    (1, 16, "CPU per request"): (1 / 8, True),
    (1, 1, "p50"): (0.3, True),
    (1, 64, "requests per second"): (8.0, False),
    (100, 16, "requests per second"): (4.0, False),
}


def run_rounds(world: World, options: argparse.Namespace) -> list[dict]:
    """Everloop and each peer in turn; the other side rests, and is stopped where it is not ours."""
    mine: Sides = {}
    starts: list[dict] = []
    figures: list[dict] = []
    rows = ready_rows(world)
    with ours(world, starts) as serving:
        process = psutil.Process(serving.pid)
        own = {each: our_requests(world, each) for each in (1, MANY_ROWS)}
        for name in options.peers or ["nobody"]:
            peer = PEERS.get(name)
            theirs: Sides = {}
            requests = {} if peer is None else {each: peer.requests(rows, each) for each in own}
            place = nullcontext() if peer is None else running(peer, world.model_text, requests[1][0])
            with place as found:
                for _ in range(options.rounds if name in {"nobody", "MLServer"} else 1):
                    measure("Everloop", (process, serving.port), own, options.seconds, mine)
                    if peer is not None:
                        measure(name, found, requests, options.seconds, theirs)
            if peer is not None:
                goals = MLSERVER_GOALS if name == "MLServer" else {}
                figures += beside(mine, theirs, peer.version(), goals)
        memory = process.memory_info().rss
        check_published(serving)
    return [*without_peer(mine, memory), *figures, *starts]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trees", type=int, default=300)
    parser.add_argument("--leaves", type=int, default=63)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})
    world = World(options.trees, options.leaves)
    print(
        f"flights pipeline, {len(world.matrix[0])} features, {options.trees} trees x {options.leaves} leaves;"
        " rows rotate"
    )
    figures = run_rounds(world, options)
    rig.keep("serving", figures)
    rig.show(figures)


if __name__ == "__main__":
    main()
