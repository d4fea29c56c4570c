"""Features of a key as they stand now: Everloop's serving beside Feast's feature server with Redis.

    python bench/online.py [--seconds 5]

Both servers run on core 0, one after the other, and answer with the same number of features; load, Kafka and
Redis are on the others. Feast looks up values that somebody has written; Everloop computes windows when it is
asked. Feast is in an environment of its own under bench/.peers, made with uv; Redis is Debian's.
"""

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import load
import psutil
import serving as flights
from everloop.embedded import Kafka
from everloop_kernel.settings import KafkaSettings
from everloop_serving.adapters.lightgbm_engine import Booster, Explainer
from everloop_serving.application.loaded_model import Blueprint, LoadedModel
from everloop_serving.application.online import read_online
from everloop_serving.domain.artifact import read_artifact
from integration.serving.deployed_model import Signer, reference
from integration.serving.serving_process import ServingProcess, free_port

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "bench/.peers"
FEAST = "feast[redis]==0.67.0"
CONNECTIONS = (1, 16)
GOAL_MICROSECONDS, GOAL_RATIO = 20, 0.4
KEYS = [{"origin": o, "carrier": c} for o in ("EWR", "JFK", "LGA") for c in flights.CARRIERS]


class State:
    def __init__(self, reader) -> None:
        self.reader = reader

    def age_seconds(self) -> float:
        return 0.0


def in_process_microseconds(world: flights.World, reads: int = 20_000) -> float:
    """The median of 20 rounds: one key's features, from a checked request to a mapping."""
    blueprint = Blueprint.of(reference(world.artifact, 1), read_artifact(world.artifact))
    state = blueprint.compiled.new_state(1)
    for changes in world.changes:
        for key, value in changes:
            state.load(key, value)
    engine = Booster(blueprint.artifact.model_text)
    model = LoadedModel(blueprint, engine, State(state), most_rows=500, explainer=Explainer)
    now_us = state.event_clock_us
    assert read_online(model, KEYS[0], now_us)["origin_flights_1h"] > 0
    rounds = []
    for _ in range(20):
        began = time.perf_counter()
        for number in range(reads // 20):
            read_online(model, KEYS[number % len(KEYS)], now_us)
        rounds.append((time.perf_counter() - began) / (reads // 20) * 1e6)
    return statistics.median(rounds)


def measured(pid: int, port: int, requests: list[bytes], seconds: float) -> dict[int, load.Figures]:
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        process.cpu_affinity([0])
    found = {connections: load.run(port, requests, connections, seconds) for connections in CONNECTIONS}
    assert not any(figures.errors for figures in found.values()), found
    return found


def bench_everloop(world: flights.World, seconds: float) -> dict[int, load.Figures]:
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder) / "kafka", port=0) as broker:
        signer = Signer()
        signer.trust_in(Path(folder) / "data" / "keys")
        asyncio.run(world.publish(KafkaSettings(bootstrap_servers=broker.bootstrap_servers), signer))
        server = ServingProcess(broker.bootstrap_servers, Path(folder) / "data")
        server.start()
        try:
            server.wait_for(f"/v2/models/{flights.NAME}/ready")
            server.wait_for("/health/ready")
            path = f"/v1/pipelines/{flights.NAME}/online"
            requests = [load.http_post(path, json.dumps(key).encode()) for key in KEYS]
            return measured(server.pid, server.port, requests, seconds)
        finally:
            server.stop()


def feast() -> Path:
    """Feast's environment, made at the first run."""
    home = PEERS / "feast"
    if not (home / "bin/feast").exists():
        subprocess.run(["uv", "venv", "-q", str(home)], check=True)
        subprocess.run(
            ["uv", "pip", "install", "-q", "--python", str(home / "bin/python"), FEAST], check=True
        )
    return home / "bin"


@contextmanager
def running(command: list[str], folder: str, is_up) -> Iterator[subprocess.Popen]:
    """A process, once it answers; its output is kept beside it."""
    with (Path(folder) / "output").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while not is_up():
            assert process.poll() is None, (Path(folder) / "output").read_text()
            assert time.monotonic() < deadline, "it does not start"
            time.sleep(0.1)
        yield process
    finally:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.terminate()
        process.terminate()
        process.wait(20)


def bench_feast(names: list[str], seconds: float) -> dict[int, load.Figures]:
    bin_, port, redis_port = feast(), free_port(), free_port()
    redis = shutil.which("redis-server")
    if redis is None:
        sys.exit("redis-server is not installed: apt-get install redis-server")
    ping = ["redis-cli", "-p", str(redis_port), "ping"]
    with tempfile.TemporaryDirectory() as folder:
        store = [redis, "--port", str(redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with running(
            store, folder, lambda: subprocess.run(ping, capture_output=True, check=False).returncode == 0
        ):
            script = ROOT / "bench/peers/feast_online.py"
            subprocess.run([bin_ / "python", script, folder, str(redis_port), *names], check=True)
            server = [str(bin_ / "feast"), "serve", "-p", str(port), "--no-access-log", "-w", "1"]
            server += ["--max-requests", "100000000", "-r", "3600"]
            with running(server, folder, lambda: answers(port)) as process:
                features = [f"flights:{name}" for name in names]
                keys = [f"{key['origin']}-{key['carrier']}" for key in KEYS]
                bodies = [{"features": features, "entities": {"key": [key]}} for key in keys]
                path = "/get-online-features"
                found = httpx.post(f"http://127.0.0.1:{port}{path}", json=bodies[0]).json()
                assert [r["values"] for r in found["results"]][-1] == [len(names) - 1.0], found
                requests = [load.http_post(path, json.dumps(body).encode()) for body in bodies]
                return measured(process.pid, port, requests, seconds)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.TransportError:
        return False


def figures_of(microseconds: float, ours: dict, peer: dict) -> list[dict]:
    version = f"{FEAST}, feature server with Redis"
    found = [
        {
            "name": "online: one key in process", "ours": round(microseconds, 1),
            "peer": None, "peer_version": None,
            "unit": "µs", "ratio": None, "goal": GOAL_MICROSECONDS, "met": microseconds <= GOAL_MICROSECONDS,
        }
    ]  # fmt: skip
    for connections in CONNECTIONS:
        a, b = ours[connections], peer[connections]
        ratio = a.p50_ms / b.p50_ms
        goal = GOAL_RATIO if connections == 1 else None
        found.append(
            {
                "name": f"online: HTTP p50, {connections} connections", "ours": round(a.p50_ms, 3),
                "peer": round(b.p50_ms, 3), "peer_version": version, "unit": "ms", "ratio": round(ratio, 3),
                "goal": goal, "met": None if goal is None else ratio <= goal,
            }
        )  # fmt: skip
    a, b = ours[CONNECTIONS[-1]].requests_per_second, peer[CONNECTIONS[-1]].requests_per_second
    found.append(
        {
            "name": f"online: HTTP requests per second, {CONNECTIONS[-1]} connections", "ours": round(a),
            "peer": round(b), "peer_version": version, "unit": "requests/s", "ratio": round(a / b, 1),
            "goal": None, "met": None,
        }
    )  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    if len(os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {0})
    world = flights.World(trees=50, leaves=15)
    microseconds = in_process_microseconds(world)
    ours = bench_everloop(world, seconds)
    peer = bench_feast(sorted(world.pipeline.features), seconds)
    figures = figures_of(microseconds, ours, peer)
    python, busy = platform.python_version(), os.getloadavg()[1]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, load {busy:.1f}"
    (ROOT / "bench/results/online.json").write_text(
        json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n"
    )
    for figure in figures:
        print(f"{figure['name']}: {figure['ours']:,} {figure['unit']}", end="")
        print(f" (peer {figure['peer']:,}, ratio {figure['ratio']})" if figure["peer"] else "")


if __name__ == "__main__":
    main()
