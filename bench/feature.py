"""Rows per second through the feature service on one core, exactly-once, against a bare consume-produce loop.

    python bench/feature.py [--rows 200000]

A log of observations and labels is published first; then the service (pinned to core 0, Kafka on the others)
works it off. Rates are taken from the broker's record times of what came out: from the first transaction to
the last, start-up not counted. The peer does nothing but `json.loads`, `json.dumps` and aiokafka's send,
without transactions, features or state, in the same run on the same core.
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
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from everloop.embedded import Kafka
from everloop_kernel.admin import ensure_topics
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import PipelineDefined
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load, to_definition
from everloop_schemas.topics import pipeline_topics, platform_topics

ROOT = Path(__file__).parents[1]
NAME = "flight-delay"
LOG = f"ingest-record-accepted-v1.{NAME}"
VECTORS = f"feature-vector-computed-v1.{NAME}"
PEER_TOPIC = "bench-peer"
START = datetime(2013, 1, 1, tzinfo=UTC)
CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"]
GOAL_ROWS_PER_SECOND = 20_000


def record(chance: random.Random, number: int) -> dict:
    """An observation of a flight, or the label of the flight that departed 30 records before."""
    origin = ("EWR", "JFK", "LGA")[number // 2 % 3]
    at = START + timedelta(seconds=40 * number)
    known = {"event_time": at.isoformat(), "known_at": at.isoformat(), "source": "bench"}
    if number % 2 and number > 60:
        fields = {"origin": origin, "arrival_delay": chance.gauss(5, 30)}
        return {"kind": "label", "id": f"f{number - 61}", **known, "fields": fields}
    fields = {
        "origin": origin,
        "carrier": chance.choice(CARRIERS),
        "dest": f"D{chance.randrange(100):02d}",
        "distance": float(chance.randrange(80, 5000)),
        "plane_year": chance.choice([None, float(chance.randrange(1960, 2013))]),
        "seats": float(chance.randrange(20, 400)),
        "temperature": chance.uniform(10, 90),
        "humidity": chance.uniform(10, 100),
        "wind": chance.uniform(0, 40),
        "precipitation": chance.choice([0.0, 0.0, 0.1]),
        "visibility": 10.0,
        "pressure": chance.uniform(990, 1040),
    }
    return {"kind": "observation", "id": f"f{number}", **known, "fields": fields}


async def publish(kafka: KafkaSettings, rows: int, partitions: int) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, linger_ms=20, max_batch_size=1 << 18
    )
    await producer.start()
    chance = random.Random(1)
    try:
        for number in range(rows):
            value = record(chance, number)
            key = key_bytes([value["fields"]["origin"]])
            await producer.send(LOG, json.dumps(value).encode(), key, partition=partition_of(key, partitions))
        await producer.flush()
        text = (ROOT / "examples/flights/pipeline.yaml").read_text()
        event = PipelineDefined(
            pipeline=NAME, version=1, definition=to_definition(load(text)), sha256="0" * 64,
            partitions=partitions, defined_at=START, defined_by="bench",
        )  # fmt: skip
        encoded, headers = cloudevents.encode(event, id="1", source="bench")
        await producer.send_and_wait(event.topic, encoded, NAME.encode(), headers=headers)
    finally:
        await producer.stop()


async def committed(kafka: KafkaSettings, topic: str, partitions: int) -> list[int]:
    """Wall-clock milliseconds of each record that is committed."""
    return [
        each.timestamp
        for partition in range(partitions)
        async for page in read_to_end(kafka, TopicPartition(topic, partition))
        for each in page
    ]


async def worked_off(kafka: KafkaSettings, topic: str, partitions: int, wanted: int) -> list[int]:
    """Wait for `wanted` records on a topic; a look every two seconds disturbs little."""
    deadline = time.monotonic() + 300
    while len(times := await committed(kafka, topic, partitions)) < wanted:
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(times)} of {wanted} records after five minutes")
        await asyncio.sleep(2)
    if len(times) > wanted:
        raise SystemExit(f"{len(times)} records instead of {wanted}: not exactly once")
    return sorted(times)


def rate(times: list[int], rows: int) -> float:
    """Rows per second after the first transaction, whose begin is not known."""
    later = [moment for moment in times if moment > times[0]]
    return rows * len(later) / len(times) / ((times[-1] - times[0]) / 1000)


async def bare_loop(bootstrap: str, rows: int) -> None:
    """The peer: what anybody writes first."""
    consumer = AIOKafkaConsumer(
        LOG, bootstrap_servers=bootstrap, group_id="peer", auto_offset_reset="earliest"
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


async def measure(rows: int, partitions: int) -> dict:
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder) / "kafka", port=0) as broker:
        cores = os.sched_getaffinity(0) - {0} or {0}
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            process.cpu_affinity(list(cores))
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        topics = {**platform_topics(), **pipeline_topics(NAME, partitions), PEER_TOPIC: (partitions, {})}
        await ensure_topics(kafka, topics)
        await publish(kafka, rows, partitions)
        chance = random.Random(1)
        observations = sum(record(chance, number)["kind"] == "observation" for number in range(rows))
        log = Path(folder) / "log"
        service = pinned(
            [sys.executable, "-m", "everloop_feature"], log,
            EVERLOOP_KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap_servers, EVERLOOP_FEATURE_HTTP_PORT="0",
        )  # fmt: skip
        try:
            before = psutil.Process(service.pid)
            times = await worked_off(kafka, VECTORS, partitions, observations)
            used = before.cpu_times()
            memory = before.memory_info().rss
        finally:
            service.terminate()
            service.wait(30)
        peer = pinned(
            [sys.executable, __file__, "--peer-of", kafka.bootstrap_servers, "--rows", str(rows)], log
        )
        try:
            peer_times = await worked_off(kafka, PEER_TOPIC, partitions, rows)
        finally:
            peer.wait(30)
        return {
            "ours": rate(times, rows),
            "peer": rate(peer_times, rows),
            "cpu": rows / (used.user + used.system),
            "memory": memory / 1e6,
        }


def alone(name: str, ours: float, unit: str) -> dict:
    """A figure without peer or goal."""
    absent = dict.fromkeys(("peer", "peer_version", "ratio", "goal", "met"))
    return {"name": name, "ours": round(ours), "unit": unit, **absent}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--peer-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer_of:
        asyncio.run(bare_loop(arguments.peer_of, arguments.rows))
        return
    found = asyncio.run(measure(arguments.rows, partitions=4))
    peer = f"aiokafka {version('aiokafka')}"
    figures = [
        {
            "name": "feature: rows per second, exactly-once with state, one core",
            "ours": round(found["ours"]),
            "peer": round(found["peer"]),
            "peer_version": f"{peer}, bare consume-produce loop",
            "unit": "rows/s",
            "ratio": round(found["ours"] / found["peer"], 2),
            "goal": GOAL_ROWS_PER_SECOND,
            "met": found["ours"] >= GOAL_ROWS_PER_SECOND,
        },
        alone("feature: rows per CPU second, start-up included", found["cpu"], "rows/CPU s"),
        alone("feature: resident memory", found["memory"], "MB"),
    ]
    python, busy = platform.python_version(), os.getloadavg()[1]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {python}, load {busy:.1f}"
    result = {"machine": machine, "figures": figures}
    path = ROOT / "bench/results/feature.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    for figure in figures:
        print(f"{figure['name']}: {figure['ours']:,} {figure['unit']}", end="")
        print(f" (peer {figure['peer']:,}, ratio {figure['ratio']})" if figure["peer"] else "")


if __name__ == "__main__":
    main()
