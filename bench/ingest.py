"""Ingest's worker beside bare loops, in one run: records per CPU second, exactly-once, and memory.

    python bench/ingest.py [--rows 300000] [--apart 1]

Observations (1% duplicates) come in by the inbound topic; the service checks, deduplicates and writes them to
the log in transactions. A first part is worked off to warm up; then the rest is published at full speed, and
the rate is rows over the CPU time of the process until they are all committed: start-up is not counted. Rows
are a second apart; `--apart 40` is what catching up with months is like, when the gates of thousands of
windows are judged, and its result is not kept. The peers only pass records on, without transactions, checks
or deduplication. Each has core 0 to itself, Kafka and this script the others. `bench/ingest_edge.py` measures
the HTTP edge.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import msgspec
import rig
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of

NAME = "bench"
INBOUND = f"producer-record-published-v1.{NAME}"
LOG = f"ingest-record-accepted-v1.{NAME}"
START = datetime(2013, 1, 1, tzinfo=UTC)
PARTITIONS = 4
WARM_UP = 60_000
GOAL_RECORDS_PER_SECOND = 40_000
ORIGINS = [f"A{number:02d}" for number in range(40)]
CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"]
PIPELINE = """
pipeline: bench
partition_by: [origin]
partitions: 4
observation:
  event_time: scheduled_departure
  replay_sources: [bench]
  fields:
    origin: {type: category}
    carrier: {type: category, values: [UA, AA, DL, B6, EV, MQ, US, WN, VX, FL, AS, 9E, F9, HA, YV, OO]}
    dest: {type: category}
    distance: {type: number, unit: mi, min: 0, max: 6000}
    seats: {type: integer, min: 1, nullable: true}
    temperature: {type: number, unit: degF, min: -60, max: 140, nullable: true}
    wind: {type: number, unit: mph, min: 0, nullable: true}
    precipitation: {type: number, nullable: true}
label:
  type: binary
  fields: {arrival_delay: {type: number, unit: min}}
  value: {late: arrival_delay > 15}
"""
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"observation"),
    ("ce_source", b"bench"),
    ("ce_type", b"io.everloop.observation"),
    ("content-type", b"application/json"),
]


def record(chance: random.Random, number: int, apart: int) -> dict:
    at = (START + timedelta(seconds=apart * number)).isoformat().replace("+00:00", "Z")
    return {
        "id": f"{apart}-{number:08d}",
        "scheduled_departure": at,
        "known_at": at,
        "origin": chance.choice(ORIGINS),
        "carrier": chance.choice(CARRIERS),
        "dest": f"D{chance.randrange(100):02d}",
        "distance": float(chance.randrange(80, 5000)),
        "seats": chance.randrange(20, 400),
        "temperature": round(chance.uniform(10, 90), 2),
        "wind": chance.choice([None, 7.5]),
        "precipitation": 0.0,
    }


def rows(first: int, last: int, *, apart: int) -> rig.Rows:
    chance, encode = random.Random(first), msgspec.json.Encoder().encode
    by_partition: dict[int, list[rig.Row]] = {number: [] for number in range(PARTITIONS)}
    for number in range(first, last):
        value = record(chance, number, apart)
        key = key_bytes([value["origin"]])
        copies = 2 if number % 100 == 0 else 1
        by_partition[partition_of(key, PARTITIONS)] += [(key, encode(value))] * copies
    return by_partition


def distinct(by_partition: rig.Rows) -> int:
    """Rows without the duplicates."""
    return sum(len(set(part)) for part in by_partition.values())


def bare(kafka: KafkaSettings, mode: str) -> rig.Contender:
    source, target = f"bench-bare-{mode}-in", f"bench-bare-{mode}-out"
    script = str(Path(__file__).parent / "peers/bare_loop.py")
    command = [sys.executable, script, kafka.bootstrap_servers, source, target, mode]
    return rig.Contender(command, "bench-bare", source, target)


async def measure(kafka: KafkaSettings, log: Path, wanted: int, apart: int) -> list[dict]:
    modes = ("raw", "msgspec")
    await rig.prepare(
        kafka, PIPELINE, [f"bench-bare-{mode}-{side}" for mode in modes for side in ("in", "out")]
    )
    warm, rest = rows(0, WARM_UP, apart=apart), rows(WARM_UP, WARM_UP + wanted, apart=apart)
    command = [sys.executable, "-m", "everloop_ingest"]
    service = rig.Contender(command, "everloop-ingest", INBOUND, LOG, distinct)
    ours = await rig.steady(kafka, service, warm, rest, headers=HEADERS, log=log)
    goal = GOAL_RECORDS_PER_SECOND
    figures = [
        rig.figure(
            "ingest: records per CPU second, exactly-once", ours.per_cpu_second, "records/CPU s", goal=goal
        ),
        rig.figure("ingest: records per second of the same run", ours.per_second, "records/s"),
        rig.figure("ingest: resident memory", ours.megabytes_end, "MB"),
    ]
    for mode in modes:
        found = await rig.steady(kafka, bare(kafka, mode), warm, rest, headers=HEADERS, log=log)
        name = f"aiokafka {version('aiokafka')}, tuned consume-produce loop without guarantees, {mode}"
        figures.append(
            rig.figure(
                f"ingest: records per CPU second beside a bare loop, {mode}", ours.per_cpu_second,
                "records/CPU s", peer=found.per_cpu_second, peer_version=name,
            )
        )  # fmt: skip
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--apart", type=int, default=1, help="seconds of event time from record to record")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, rig.broker(Path(folder)) as kafka:
        figures = asyncio.run(measure(kafka, Path(folder) / "log", options.rows, options.apart))
    if options.apart == 1:
        rig.keep("ingest", figures)
    rig.show(figures)


if __name__ == "__main__":
    main()
