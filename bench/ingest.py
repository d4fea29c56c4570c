"""Records per second through ingest's worker on one core, exactly-once, against a bare consume-produce loop.

    python bench/ingest.py [--rows 300000]

Observations (1% duplicates) are published to the inbound topic first; then the service (pinned to core 0,
Kafka on the others) checks, deduplicates and writes them to the log. The rate is taken from the broker's
record times of the log: from the first transaction to the last, start-up not counted. The peer does nothing
but `json.loads`, `json.dumps` and aiokafka's send, without transactions, checks or deduplication, in the same
run on the same core. `bench/ingest_edge.py` measures the HTTP edge.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from everloop.embedded import Kafka
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka import plain_producer
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import PipelineDefined
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

ROOT = Path(__file__).parents[1]
NAME = "bench"
INBOUND = f"producer-record-published-v1.{NAME}"
LOG = f"ingest-record-accepted-v1.{NAME}"
PEER_TOPIC = "bench-peer"
START = datetime(2013, 1, 1, tzinfo=UTC)
PARTITIONS = 4
GOAL_RECORDS_PER_SECOND = 20_000
ORIGINS = [f"A{number:02d}" for number in range(40)]
CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"]
PIPELINE = """
pipeline: bench
partition_by: [origin]
observation:
  event_time: scheduled_departure
  replay_sources: [bench]
  fields:
    origin: {type: category}
    carrier: {type: category, values: [UA, AA, DL, B6, EV, MQ, US, WN, VX, FL, AS, 9E, F9, HA, YV, OO]}
    dest: {type: category}
    distance: {type: number, unit: mi, min: 0, max: 6000}
    seats: {type: integer, min: 1, nullable: true}
    temperature: {type: number, unit: F, min: -60, max: 140, nullable: true}
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


def record(chance: random.Random, number: int) -> dict:
    at = (START + timedelta(seconds=40 * number)).isoformat().replace("+00:00", "Z")
    return {
        "id": f"2013-{number:08d}",
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


async def define(kafka: KafkaSettings) -> None:
    event = PipelineDefined(
        pipeline=NAME, version=1, definition=to_definition(load(PIPELINE)), sha256="0" * 64,
        partitions=PARTITIONS, defined_at=START, defined_by="bench",
    )  # fmt: skip
    value, headers = cloudevents.encode(event, id="1", source="bench")
    async with plain_producer(kafka) as producer:
        await producer.send_and_wait(event.topic, value, NAME.encode(), headers=headers)


async def publish(kafka: KafkaSettings, rows: int) -> None:
    chance = random.Random(1)
    rows_by_partition: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in range(PARTITIONS)}
    for number in range(rows):
        value = record(chance, number)
        key = key_bytes([value["origin"]])
        copies = 2 if number % 100 == 0 else 1
        rows_by_partition[partition_of(key, PARTITIONS)] += [(key, json.dumps(value).encode())] * copies
    async with plain_producer(kafka) as producer:
        for partition, records in rows_by_partition.items():
            batch = producer.create_batch()
            for key, value in records:
                if batch.append(timestamp=None, key=key, value=value, headers=HEADERS) is None:
                    await producer.send_batch(batch, INBOUND, partition=partition)
                    batch = producer.create_batch()
                    batch.append(timestamp=None, key=key, value=value, headers=HEADERS)
            await producer.send_batch(batch, INBOUND, partition=partition)
        await producer.flush()


async def committed(kafka: KafkaSettings, topic: str) -> list[int]:
    """Wall-clock milliseconds of each record that is committed."""
    return [
        each.timestamp
        for partition in range(PARTITIONS)
        async for page in read_to_end(kafka, TopicPartition(topic, partition))
        for each in page
    ]


async def end(kafka: KafkaSettings, topic: str) -> int:
    """Offsets of a topic, markers included: cheap to ask for."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers)
    await consumer.start()
    try:
        offsets = await consumer.end_offsets([TopicPartition(topic, number) for number in range(PARTITIONS)])
    finally:
        await consumer.stop()
    return sum(offsets.values())


async def worked_off(kafka: KafkaSettings, topic: str, wanted: int) -> list[int]:
    deadline = time.monotonic() + 300
    while await end(kafka, topic) < wanted or len(times := await committed(kafka, topic)) < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"{topic} has not {wanted} records after five minutes")
        await asyncio.sleep(1)
    if len(times) > wanted:
        raise SystemExit(f"{len(times)} records instead of {wanted}: not exactly once")
    return sorted(times)


def rate(times: list[int]) -> float:
    """Records per second after the first transaction, whose begin is not known."""
    later = [moment for moment in times if moment > times[0]]
    return len(later) / ((times[-1] - times[0]) / 1000)


async def bare_loop(bootstrap: str, rows: int) -> None:
    """The peer: what anybody writes first."""
    consumer = AIOKafkaConsumer(
        INBOUND, bootstrap_servers=bootstrap, group_id="peer", auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    await consumer.start()
    await producer.start()
    done = 0
    while done < rows:
        for batch in (await consumer.getmany(timeout_ms=500, max_records=4000)).values():
            for message in batch:
                value = json.dumps(json.loads(message.value)).encode()
                await producer.send(PEER_TOPIC, value, message.key, partition=message.partition)
            done += len(batch)
        await producer.flush()
        await consumer.commit()
    await producer.stop()
    await consumer.stop()


def pinned(command: list[str], log: Path, **environment: str) -> subprocess.Popen:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
    psutil.Process(process.pid).cpu_affinity([0])
    return process


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def measure(rows: int) -> dict:
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder) / "kafka", port=0) as broker:
        cores = os.sched_getaffinity(0) - {0} or {0}
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            process.cpu_affinity(list(cores))
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        topics = {**platform_topics(), **pipeline_topics(NAME, PARTITIONS), PEER_TOPIC: (PARTITIONS, {})}
        await ensure_topics(kafka, topics)
        await define(kafka)
        await publish(kafka, rows)
        log, port = Path(folder) / "log", free_port()
        service = pinned(
            [sys.executable, "-m", "everloop_ingest"], log,
            EVERLOOP_KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers, EVERLOOP_INGEST_HTTP_PORT=str(port),
        )  # fmt: skip
        try:
            times = await worked_off(kafka, LOG, rows)
            watched = psutil.Process(service.pid)
            used, memory = watched.cpu_times(), watched.memory_info().rss
        finally:
            service.terminate()
            service.wait(30)
        inbound = len(await committed(kafka, INBOUND))
        peer = pinned(
            [sys.executable, __file__, "--peer-of", kafka.bootstrap_servers, "--rows", str(inbound)], log
        )
        try:
            peer_times = await worked_off(kafka, PEER_TOPIC, inbound)
        finally:
            peer.terminate()
            peer.wait(30)
        return {
            "ours": rate(times),
            "peer": rate(peer_times),
            "cpu": rows / (used.user + used.system),
            "memory": memory / 1e6,
        }


def alone(name: str, ours: float, unit: str) -> dict:
    """A figure without peer or goal."""
    absent = dict.fromkeys(("peer", "peer_version", "ratio", "goal", "met"))
    return {"name": name, "ours": round(ours), "unit": unit, **absent}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--peer-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer_of:
        asyncio.run(bare_loop(arguments.peer_of, arguments.rows))
        return
    found = asyncio.run(measure(arguments.rows))
    figures = [
        {
            "name": "ingest: records per second through the worker, exactly-once, one core",
            "ours": round(found["ours"]),
            "peer": round(found["peer"]),
            "peer_version": f"aiokafka {version('aiokafka')}, bare consume-produce loop without guarantees",
            "unit": "records/s",
            "ratio": round(found["ours"] / found["peer"], 2),
            "goal": GOAL_RECORDS_PER_SECOND,
            "met": found["ours"] >= GOAL_RECORDS_PER_SECOND,
        },
        alone("ingest: records per CPU second, start-up included", found["cpu"], "records/CPU s"),
        alone("ingest: resident memory", found["memory"], "MB"),
    ]
    python, busy = platform.python_version(), os.getloadavg()[1]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, load {busy:.1f}"
    path = ROOT / "bench/results/ingest.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    for figure in figures:
        print(f"{figure['name']}: {figure['ours']:,} {figure['unit']}", end="")
        print(f" (peer {figure['peer']:,}, ratio {figure['ratio']})" if figure["peer"] else "")


if __name__ == "__main__":
    main()
