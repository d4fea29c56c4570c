"""What a replay of a changed pipeline does to live records, and how long it takes beside them.

    python bench/replay.py [--rows 300000] [--rate 1000] [--seconds 15] [--shares 0.5,0.2]

Live observations come at a steady rate: first alone, then while version 2 replays the history. The service
has core 0 to itself, Kafka and this script the others. Latency is from before an observation is sent to the
log until its vector is read (read_committed); a replay's pace is that while live records came.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import rig
from aiokafka import TopicPartition
from everloop_kernel.kafka import plain_producer
from everloop_kernel.kafka_reading import started_reader
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of
from feature_rows import HEADERS, LOG, PARTITIONS, PIPELINE, VECTORS, record, rows

TICKS = 100
TAIL_SECONDS = 3.0


class Identified(msgspec.Struct):
    """What is looked at of a vector."""

    id: str


@dataclass
class Live:
    """Observations sent at a steady rate, and when the first vector of each came: the version published."""

    kafka: KafkaSettings
    number: int = 10_000_000
    sent: dict[str, float] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)

    async def read(self) -> None:
        """Read vectors until cancelled."""
        decode = msgspec.json.Decoder(Identified).decode
        consumer = await started_reader(self.kafka)
        try:
            partitions = [TopicPartition(VECTORS, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_end(*partitions)
            while True:
                got = await consumer.getmany(timeout_ms=200)
                now = time.monotonic()
                ids = [decode(each.value).id for records in got.values() for each in records]
                self.delays += [now - self.sent.pop(name) for name in ids if name in self.sent]
        finally:
            await consumer.stop()

    async def send(self, rate: int, seconds: int) -> None:
        """A hundredth of a second's records at a time."""
        chance, encode = random.Random(self.number), msgspec.json.Encoder().encode
        async with plain_producer(self.kafka, linger_ms=0) as producer:
            began = time.monotonic()
            for tick in range(TICKS * seconds):
                await asyncio.sleep(max(0, began + tick / TICKS - time.monotonic()))
                for _ in range(rate // TICKS):
                    self.number += 1
                    value = record(chance, self.number)
                    key = key_bytes([value["fields"]["plane"]])
                    self.sent[value["id"]] = time.monotonic()
                    await producer.send(LOG, encode(value), key, partition_of(key, PARTITIONS), None, HEADERS)
            await producer.flush()

    async def measured(self, rate: int, seconds: int) -> tuple[float, float]:
        """p50 and p99 in milliseconds."""
        self.sent, self.delays = {}, []
        reading = asyncio.create_task(self.read())
        await asyncio.sleep(1)
        await self.send(rate, seconds)
        await asyncio.sleep(TAIL_SECONDS)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if self.sent:
            raise SystemExit(f"{len(self.sent)} observations have no vector after {TAIL_SECONDS:.0f} s")
        delays = sorted(self.delays)
        return delays[len(delays) // 2] * 1000, delays[int(len(delays) * 0.99)] * 1000


async def replayed(url: str) -> tuple[float, float]:
    """How far all partitions are, and how far they must be."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    found = [
        re.findall(rf"everloop_feature_replay_{name}{{.*}} (\S+)", text) for name in ("position", "target")
    ]
    position, target = (sum(map(float, values)) for values in found)
    return position, target


async def over(url: str) -> None:
    """Wait until nothing is replayed."""
    while True:
        position, target = await replayed(url)
        if position == target > 0:
            return
        await asyncio.sleep(0.2)


async def run(kafka: KafkaSettings, log: Path, asked: argparse.Namespace, share: str) -> list[dict]:
    """One share: live records alone, then beside a replay."""
    port = rig.free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {**rig.environment(kafka), "EVERLOOP_FEATURE_HTTP_PORT": str(port)}
    await rig.prepare(kafka, PIPELINE)
    await rig.publish(kafka, LOG, rows(0, asked.rows), HEADERS)
    live = Live(kafka)
    command = [sys.executable, "-m", "everloop_feature"]
    with rig.pinned(command, log, **settings, EVERLOOP_FEATURE_REPLAY_SHARE=share):
        async with rig.progress(kafka, "everloop-feature", LOG, PARTITIONS) as reach:
            await reach(asked.rows)
        await live.send(asked.rate, 5)
        alone = await live.measured(asked.rate, asked.seconds)
        changed = PIPELINE.replace("count(window='6h'", "count(window='3h'")
        began = time.monotonic()
        await rig.prepare(kafka, changed, revision=2)
        beside = await live.measured(asked.rate, asked.seconds)
        done, target = await replayed(url)
        pace = done / (time.monotonic() - began)
        if done >= target:
            print(f"the replay was over before {asked.seconds} s: take more rows")
        await asyncio.wait_for(over(url), 600)
        took = time.monotonic() - began
    name = f"replay at a share of {share}, {asked.rate:,} live records a second"
    return [
        rig.figure(f"{name}: live p50 without it", alone[0], "ms", digits=1),
        rig.figure(f"{name}: live p50 beside it", beside[0], "ms", digits=1),
        rig.figure(f"{name}: live p99 without it", alone[1], "ms", digits=1),
        rig.figure(f"{name}: live p99 beside it", beside[1], "ms", goal=100, at_most=True, digits=1),
        rig.figure(f"{name}: rows replayed a second", pace, "rows/s"),
        rig.figure(f"{name}: seconds until the cut, {target:,.0f} rows", took, "s", digits=1),
    ]


async def main(asked: argparse.Namespace, shares: Sequence[str]) -> None:
    figures = []
    for share in shares:
        with tempfile.TemporaryDirectory() as name, rig.broker(Path(name)) as kafka:
            figures += await run(kafka, Path(name) / "log", asked, share)
    rig.show(figures)
    if asked.keep:
        rig.keep("replay", figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rate", type=int, default=1_000)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--shares", default="0.5,0.2")
    parser.add_argument("--keep", action="store_true", help="write bench/results/replay.json")
    arguments = parser.parse_args()
    asyncio.run(main(arguments, arguments.shares.split(",")))
