"""History published to a pipeline's inbound topic: in order, throttled, and from where it was left off."""

import asyncio
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from everloop_kernel.kafka import close_quietly, plain_producer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import Pipeline
from everloop_schemas.topics import TOPICS

from everloop.errors import EverloopError
from everloop.history.records import Timed

__all__ = ["Progress", "publish_history"]

_BLOCK = 5_000
_INBOUND = TOPICS["producer-record-published-v1"]


class Progress:
    """How many records of one history the broker has: in a file, so that the next run begins there.

    `identity` says what the history is; another one has another file.
    """

    def __init__(self, folder: Path, pipeline: str, identity: str) -> None:
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.path = folder / f"{pipeline}-{digest}.json"

    @property
    def published(self) -> int:
        """Records that need not be sent again."""
        try:
            return int(json.loads(self.path.read_text())["published"])
        except (OSError, ValueError, KeyError):
            return 0

    def save(self, published: int) -> None:
        """Keep the number, all of it or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps({"published": published}))
        partial.replace(self.path)


@dataclass(frozen=True, slots=True)
class _Target:
    pipeline: Pipeline
    source: str

    def entry(self, record: Timed) -> tuple[int, bytes, list[tuple[str, bytes]]]:
        """Partition, key and CloudEvents headers: those that ingest's edge would write."""
        fields = msgspec.json.decode(record.value)
        key = key_bytes([fields.get(name) for name in self.pipeline.partition_by])
        kind = "label" if record.is_label else "observation"
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{kind}-{fields.get('id')}".encode()),
            ("ce_source", self.source.encode()),
            ("ce_type", f"io.everloop.{kind}".encode()),
            ("content-type", b"application/json"),
        ]
        return partition_of(key, self.pipeline.partitions), key, headers


async def publish_history(
    kafka: KafkaSettings,
    pipeline: Pipeline,
    source: str,
    records: Iterable[Timed],
    *,
    progress: Progress,
    rate: float | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> int:
    """Publish what progress does not have yet, at most `rate` records a second; how many that were.

    A block is counted once the broker has it on every replica. A block that was under way when the process
    ended is sent again: ingest knows its records by (source, id).
    """
    done = progress.published
    target, sent, pace = _Target(pipeline, source), 0, _Pace(rate)
    block_size = _BLOCK if rate is None else max(1, min(_BLOCK, round(rate)))
    async with _producer(kafka) as producer:
        for block in _blocks(islice(records, done, None), block_size):
            await pace.wait(sent)
            await _send(producer, target, block)
            sent += len(block)
            progress.save(done + sent)
            tell(done + sent)
    return sent


class _Pace:
    """Holds a sender to a rate."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began = time.monotonic()

    async def wait(self, sent: int) -> None:
        """Return when `sent` records may have been sent."""
        if self._rate is not None:
            await asyncio.sleep(max(0.0, self._began + sent / self._rate - time.monotonic()))


def _blocks(records: Iterator[Timed], size: int) -> Iterator[Sequence[Timed]]:
    while block := list(islice(records, size)):
        yield block


async def _send(producer: AIOKafkaProducer, target: _Target, block: Sequence[Timed]) -> None:
    """Send in the order of each partition and return when the broker has all."""
    topic = _INBOUND.topic_for(target.pipeline.pipeline)
    batches: defaultdict[int, list[Any]] = defaultdict(list)
    for record in block:
        partition, key, headers = target.entry(record)
        mine, content = batches[partition], {"key": key, "value": record.value, "headers": headers}
        if mine and mine[-1].append(timestamp=None, **content) is not None:
            continue
        mine.append(producer.create_batch())
        if mine[-1].append(timestamp=None, **content) is None:
            raise EverloopError(f"Row {record.row} has {len(record.value)} bytes: no record is so large.")
    waiting = [
        await producer.send_batch(batch, topic, partition=partition)
        for partition, mine in batches.items()
        for batch in mine
    ]
    await asyncio.gather(*waiting)


@asynccontextmanager
async def _producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    producer = plain_producer(kafka)
    try:
        await producer.start()
        yield producer
    finally:
        await close_quietly(producer)
