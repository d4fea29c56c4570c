"""A million hostile records at ingest and feature: none may stop them, and each one is accounted for.

    python bench/hostile.py [--records 1000000] [--seed 1]

`bench/hostile_records.py` makes them. They are published to the inbound topic of an embedded Kafka, in every
codec, while ingest and feature run as processes. Afterwards each inbound record, by its partition and offset,
stands in exactly one place: the log, the quarantine or the dead letters. What stands in none was forwarded
(its key belongs to another partition) or is a duplicate; reading each of those again says which, its copy in
the log is looked up, and the sums are ingest's own metrics, exactly.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import hostile_ledger
import psutil
import rig
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from everloop_kernel.settings import KafkaSettings
from hostile_records import PIPELINE, Hostile, RawName, hostile

NAME = "hostile"
INBOUND = f"producer-record-published-v1.{NAME}"
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
CODEC_NUMBERS = {None: 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
GROUPS = ("everloop-ingest", "everloop-feature")
CHUNK = 4000
BATCH_RECORDS, BATCH_BYTES = 500, 300_000
Place = tuple[int, int]


def batches_of(records: Sequence[Hostile]) -> list[list[Hostile]]:
    """Records of one partition in runs that one batch takes."""
    found, size = [[]], 0
    for each in records:
        length = (
            len(each.key or b"") + len(each.value or b"") + sum(10 + len(v or b"") for _, v in each.headers)
        )
        if found[-1] and (size + length > BATCH_BYTES or len(found[-1]) == BATCH_RECORDS):
            found.append([])
            size = 0
        found[-1].append(each)
        size += length
    return found


def batch_of(records: Sequence[Hostile], codec: str | None) -> BatchBuilder:
    batch = BatchBuilder(4 << 20, CODEC_NUMBERS[codec])
    if any(isinstance(name, RawName) for each in records for name, _ in each.headers):
        # only aiokafka's builder in Python asks a name for its bytes
        batch._builder = _DefaultRecordBatchBuilderPy(2, CODEC_NUMBERS[codec], 0, -1, -1, 0, 4 << 20)  # noqa: SLF001
    for each in records:
        # None of both the key and the value is Kafka's too, but not aiokafka's builder's
        key = b"" if each.key is None and each.value is None else each.key
        batch.append(timestamp=each.timestamp_ms, key=key, value=each.value, headers=list(each.headers))
    return batch


class Publisher:
    """Sends hostile records, in every codec in turn, and notes where each batch came to stand."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        options = {"bootstrap_servers": kafka.bootstrap_servers, "max_request_size": 4 << 20, "acks": "all"}
        self._producer = AIOKafkaProducer(**options)
        self._topic = topic
        self._turn = 0
        self.sent: Counter[Place] = Counter()

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def publish(self, records: Sequence[Hostile]) -> None:
        for first in range(0, len(records), CHUNK):
            await self._chunk(records[first : first + CHUNK])

    async def _chunk(self, records: Sequence[Hostile]) -> None:
        parts = {number: [each for each in records if each.partition == number] for number in range(4)}
        await asyncio.gather(*(self._send(number, part) for number, part in parts.items() if part))

    async def _send(self, partition: int, records: Sequence[Hostile]) -> None:
        for batch in batches_of(records):
            self._turn += 1
            built = batch_of(batch, CODECS[self._turn % len(CODECS)])
            ack = await (await self._producer.send_batch(built, self._topic, partition=partition))
            self.sent.update((partition, ack.offset + step) for step in range(len(batch)))


class Memory:
    """The highest resident memory of a process while it is looked at."""

    def __init__(self, process: psutil.Process) -> None:
        self.process, self.highest = process, 0
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self.process.is_running():
            self.highest = max(self.highest, self.process.memory_info().rss)
            await asyncio.sleep(0.1)

    def end(self) -> float:
        self._watching.cancel()
        return self.highest / 1e6


def outcomes(port: int) -> Counter[str]:
    """What became of the records, as ingest itself counts it."""
    found: Counter[str] = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    for line in lines:
        if line.startswith("everloop_ingest_records_total{"):
            found[line.partition('outcome="')[2].partition('"')[0]] += round(float(line.rpartition(" ")[2]))
    return found


async def feed(
    kafka: KafkaSettings, count: int, seed: int, port: int, alive: Callable[[], int]
) -> tuple[hostile_ledger.Ledger, Counter[str]]:
    """Publish, wait until all is handled, and account for it; a good record goes through at the end."""
    made = hostile(seed, count)
    async with Publisher(kafka, INBOUND) as publisher:
        while part := list(islice(made, 20_000)):
            await publisher.publish(part)
        await publisher.publish([hostile_ledger.GOOD])
    await hostile_ledger.settled(kafka, NAME, lambda: alive() == 2, GROUPS)
    return await hostile_ledger.read(kafka, NAME, publisher.sent), outcomes(port)


async def measure(kafka: KafkaSettings, folder: Path, count: int, seed: int) -> list[dict]:
    await rig.prepare(kafka, PIPELINE.replace("NAME", NAME))
    port = rig.free_port()
    services = {name: [sys.executable, "-m", f"everloop_{name}"] for name in ("ingest", "feature")}
    environment = {**rig.environment(kafka), "EVERLOOP_INGEST_HTTP_PORT": str(port)}
    with (
        rig.pinned(services["ingest"], folder / "ingest.log", **environment) as ingest,
        rig.pinned(services["feature"], folder / "feature.log", **environment) as feature,
    ):
        for process in (ingest, feature):
            process.cpu_affinity([*os.sched_getaffinity(0), 0])
        watched = [Memory(ingest), Memory(feature)]
        before = rig.cpu_seconds(ingest)

        def alive() -> int:
            return sum(
                each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in (ingest, feature)
            )

        ledger, counted = await feed(kafka, count, seed, port, alive)
        used = rig.cpu_seconds(ingest) - before
        return figures(ledger, counted, alive(), [each.end() for each in watched], used)


def figures(ledger, counted, alive: int, peaks: Sequence[float], used: float) -> list[dict]:
    print(f"{ledger.summary()}\nmetrics: {dict(counted)}\nreasons: {dict(ledger.reasons)}")
    wrong = [*ledger.mistakes(counted), *ledger.vector_mistakes()]
    print("\n".join(wrong))
    one = "hostile records"
    return [
        rig.figure(f"{one}: published", len(ledger.sent), "records"),
        *(rig.figure(f"{one}: {place}", number, "records") for place, number in ledger.places().items()),
        rig.figure(f"{one}: not accounted for exactly once", len(wrong), "mistakes", goal=0, at_most=True),
        rig.figure(f"{one}: processes of two that never ended", alive, "processes", goal=2),
        rig.figure(f"{one}: a good record goes through afterwards", ledger.good, "records", goal=1),
        rig.figure(f"{one}: ingest's peak resident memory", peaks[0], "MB", goal=600, at_most=True),
        rig.figure(f"{one}: feature's peak resident memory", peaks[1], "MB", goal=600, at_most=True),
        rig.figure(f"{one}: handled per CPU second of ingest", len(ledger.sent) / used, "records/CPU s"),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, rig.broker(Path(folder)) as kafka:
        found = asyncio.run(measure(kafka, Path(folder), options.records, options.seed))
    if options.records >= 1_000_000:
        rig.keep("hostile", found)
    rig.show(found)
    if any(each["met"] is False for each in found):
        sys.exit("a goal is not met")


if __name__ == "__main__":
    main()
