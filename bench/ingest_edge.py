"""Rows per second through ingest's HTTP edge on one core, acknowledged by the broker, beside two peers.

    python bench/ingest_edge.py [--seconds 6]

The edge (without its worker, which `bench/ingest.py` measures) is pinned to core 0; load and Kafka share the
others. Batches are arrays of 500 rows over four connections; single requests go over 32. The peers run on the
same core in the same run, in an environment of their own under bench/.peers, made with uv: FastAPI with
pydantic and aiokafka, and the same without checks in the form of Confluent's REST Proxy. CPU is the server's.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import load
import psutil
from everloop.embedded import Kafka
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import pipeline_topics, platform_topics
from ingest import NAME, PARTITIONS, ROOT, define, free_port, pinned, record

BATCH = 500
GOALS = {"batch": 60_000, "single": 4_000}
CONNECTIONS = {"batch": 4, "single": 32}
PEER_TOPIC = "bench-peer-edge"
PACKAGES = ["fastapi", "uvicorn", "uvloop", "httptools", "aiokafka", "pydantic"]


def bodies(rows_each: int) -> list[bytes]:
    """Bodies whose rows are all different: a cache must not answer for us."""
    chance, count = random.Random(3), 40 if rows_each > 1 else 4000
    made = []
    for first in range(count):
        rows = [record(chance, first * rows_each + number, 1) for number in range(rows_each)]
        for row in rows:
            row.pop("known_at")
        made.append(json.dumps(rows if rows_each > 1 else rows[0]).encode())
    return made


def as_proxy_body(body: bytes) -> bytes:
    """The same rows in the form of Confluent's REST Proxy."""
    found = json.loads(body)
    rows = found if isinstance(found, list) else [found]
    return json.dumps({"records": [{"key": row["origin"], "value": row} for row in rows]}).encode()


@contextmanager
def running(command: Sequence[str], url: str, log: Path, **environment: str) -> Iterator[psutil.Process]:
    """A pinned server that answers."""
    process = pinned(list(command), log, **environment)
    try:
        for _ in range(300):
            try:
                if httpx.get(url).status_code < 500:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(40)


def measured(process: psutil.Process, port: int, path: str, seconds: float, *, proxy: bool = False) -> dict:
    """Rows and requests per second, CPU per row, for batches and for single rows."""
    found = {}
    for kind, rows_each in (("batch", BATCH), ("single", 1)):
        made = [as_proxy_body(body) if proxy else body for body in bodies(rows_each)]
        requests = [load.http_post(path, body) for body in made]
        before = process.cpu_times()
        figures = load.run(port, requests, CONNECTIONS[kind], seconds)
        after = process.cpu_times()
        if figures.errors:
            raise SystemExit(f"{figures.errors} errors at {path}")
        used = after.user + after.system - before.user - before.system
        found[kind] = {
            "rows": figures.requests_per_second * rows_each,
            "us": used / (figures.answered * rows_each) * 1e6,
            "p99": figures.p99_ms,
        }
    found["memory"] = process.memory_info().rss / 1e6
    return found


def peers(folder: Path, bootstrap: str, seconds: float) -> dict[str, dict]:
    home = ROOT / "bench/.peers/edge"
    if not home.exists():
        subprocess.run(["uv", "venv", "-q", "--python", sys.executable, str(home)], check=True)
        python = str(home / "bin/python")
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, *PACKAGES], check=True)
    port = free_port()
    command = [str(home / "bin/python"), str(ROOT / "bench/peers/naive_edge.py"), bootstrap, str(port)]
    with running(command, f"http://127.0.0.1:{port}/", folder / "peer.log") as process:
        return {
            "fastapi": measured(process, port, "/observations", seconds),
            "proxy": measured(process, port, "/topics", seconds, proxy=True),
        }


def measure(seconds: float) -> dict[str, dict]:
    with (
        tempfile.TemporaryDirectory() as name,
        Kafka(Path(name) / "kafka", port=0, throughput=True, heap_megabytes=512) as broker,
    ):
        folder = Path(name)
        cores = os.sched_getaffinity(0) - {0} or {0}
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            process.cpu_affinity(list(cores))
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        topics = {**platform_topics(), **pipeline_topics(NAME, PARTITIONS), PEER_TOPIC: (PARTITIONS, {})}
        asyncio.run(ensure_topics(kafka, topics))
        asyncio.run(define(kafka))
        port = free_port()
        with running(
            [sys.executable, "-m", "everloop_ingest"],
            f"http://127.0.0.1:{port}/health/ready",
            folder / "log",
            EVERLOOP_KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers,
            EVERLOOP_INGEST_HTTP_PORT=str(port),
            EVERLOOP_INGEST_WORKER="false",
        ) as process:
            ours = measured(process, port, f"/v1/pipelines/{NAME}/observations", seconds)
        return {"ours": ours, **peers(folder, broker.bootstrap_servers, seconds)}


def figure(name: str, unit: str, ours: float, peer: float, **known: object) -> dict:
    ratio = round(ours / peer, 2)
    given = {"peer_version": None, "goal": None, "met": None} | known
    return {
        "name": name,
        "ours": round(ours, 1),
        "peer": round(peer, 1),
        "unit": unit,
        "ratio": ratio,
        **given,
    }


WHAT = {"batch": "rows per second in arrays of 500", "single": "single requests per second"}


def compared(ours: dict, theirs: dict, label: str) -> list[dict]:
    figures = []
    for kind, what in WHAT.items():
        mine, other = ours[kind], theirs[kind]
        met = mine["rows"] >= GOALS[kind]
        goal = {"peer_version": label, "goal": GOALS[kind], "met": met}
        figures += [
            figure(f"ingest edge: {what}, one core", "rows/s", mine["rows"], other["rows"], **goal),
            figure(f"ingest edge: CPU per row, {kind}", "µs", mine["us"], other["us"], peer_version=label),
            figure(f"ingest edge: p99, {kind}", "ms", mine["p99"], other["p99"], peer_version=label),
        ]
    memory = "ingest edge: memory after all"
    return [*figures, figure(memory, "MB", ours["memory"], theirs["memory"], peer_version=label)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=6.0)
    found = measure(parser.parse_args().seconds)
    labels = {"fastapi": "FastAPI, pydantic and aiokafka", "proxy": "REST-Proxy-like, FastAPI and aiokafka"}
    figures = [each for peer, label in labels.items() for each in compared(found["ours"], found[peer], label)]
    python, busy = platform.python_version(), os.getloadavg()[1]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, load {busy:.1f}"
    path = ROOT / "bench/results/ingest-edge.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2, ensure_ascii=False) + "\n")
    for each in figures:
        print(f"{each['name']}: {each['ours']:,} {each['unit']}", end="")
        print(f" ({each['peer_version']}: {each['peer']:,}, ratio {each['ratio']})")


if __name__ == "__main__":
    main()
