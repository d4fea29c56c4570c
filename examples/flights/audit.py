"""Reads what Everloop wrote and holds it against what was sent: nothing lost, nothing doubled."""

import base64
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from everloop_schemas.topics import GROUPS, TOPICS, dead_letter_topic
from ledger import Ledger


class _Entry(msgspec.Struct):
    id: str | None
    kind: str | None = None
    data_base64: str | None = None


@dataclass
class Audit:
    """Counts over whole topics."""

    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)
    quarantined: Counter[tuple[str, str]] = field(default_factory=Counter)
    vectors: Counter[str] = field(default_factory=Counter)
    predictions: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    trace_of: dict[str, str] = field(default_factory=dict)

    def problems(self, ledger: Ledger) -> list[str]:
        """What does not add up, in words; empty when all does."""
        sent = {("observation", i) for i in ledger.observations} | {("label", i) for i in ledger.labels}
        held = set(self.accepted) | set(self.quarantined)
        found = {
            "records lost": sent - held,
            "records from nowhere": held - sent,
            "records doubled in the log": {key for key, n in self.accepted.items() if n > 1},
            "vectors missing": {i for kind, i in self.accepted if kind == "observation"} - set(self.vectors),
            "vectors doubled": {key for key, n in self.vectors.items() if n > 1},
            "prediction events missing": set(ledger.answers) - set(self.predictions),
            "prediction events doubled": {key for key, n in self.predictions.items() if n > 1},
        }
        told = [f"{len(ids)} {what}, such as {min(ids)}" for what, ids in found.items() if ids]
        return told + ([f"{self.dead_letters} dead letters"] if self.dead_letters else [])


async def audit(bootstrap_servers: str, pipeline: str) -> Audit:
    """Read the pipeline's topics from their beginning to their present end."""
    result = Audit()

    def name(topic: str) -> str:
        return TOPICS[topic].topic_for(pipeline)

    async for record in _whole(bootstrap_servers, name("ingest-record-accepted-v1")):
        entry = msgspec.json.decode(record.value, type=_Entry)
        result.accepted[str(entry.kind), str(entry.id)] += 1
    async for record in _whole(bootstrap_servers, name("ingest-record-quarantined-v1")):
        entry = msgspec.json.decode(record.value, type=_Entry)
        original = msgspec.json.decode(base64.b64decode(entry.data_base64 or ""), type=_Entry)
        result.quarantined[str(entry.kind), str(original.id)] += 1
    async for record in _whole(bootstrap_servers, name("feature-vector-computed-v1")):
        result.vectors[str(msgspec.json.decode(record.value, type=_Entry).id)] += 1
    async for record in _whole(bootstrap_servers, name("serving-prediction-made-v1")):
        _prediction(result, record)
    for topic in map(dead_letter_topic, GROUPS):
        async for _ in _whole(bootstrap_servers, topic):
            result.dead_letters += 1
    return result


class _Prediction(msgspec.Struct):
    id: str
    arm: str


def _prediction(result: Audit, record: ConsumerRecord) -> None:
    made = msgspec.json.decode(record.value, type=_Prediction)
    if made.arm == "pinned":
        return
    result.predictions[made.id] += 1
    for key, value in record.headers:
        if key == "traceparent":
            result.trace_of[made.id] = value.decode().split("-")[1]


async def _whole(bootstrap_servers: str, topic: str) -> AsyncIterator[ConsumerRecord]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    try:
        partitions = list(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        while [p for p in partitions if await consumer.position(p) < ends[p]]:
            for records in (await consumer.getmany(timeout_ms=500, max_records=10_000)).values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()
