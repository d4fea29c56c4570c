"""Where each inbound record came to stand, by its partition and offset."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from aiokafka import TopicPartition
from everloop_ingest.application.reading import read_record
from everloop_ingest.domain.contract import Contract, Refused
from everloop_kernel.kafka import admin_client, close_quietly, committed_offsets
from everloop_kernel.kafka_reading import bounds, started_reader
from everloop_kernel.kafka_records import deliver_records
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load
from hostile_records import PARTITIONS, PIPELINE, Hostile

__all__ = ["GOOD", "Ledger", "read", "settled"]

PATIENCE_SECONDS = 900
KEY = key_bytes(["EWR"])
VALUE = {
    "id": "good", "scheduled_departure": "2026-01-01T05:00:00Z", "origin": "EWR", "carrier": "UA",
    "distance": 1,
}  # fmt: skip
GOOD = Hostile(partition_of(KEY, PARTITIONS), KEY, json.dumps(VALUE).encode(), (), None)
Place = tuple[int, int]


@dataclass
class Ledger:
    """Every inbound record, and the places of those that went on."""

    sent: Counter[Place]
    inbound: set[Place] = field(default_factory=set)
    log: Counter[Place] = field(default_factory=Counter)
    quarantine: Counter[Place] = field(default_factory=Counter)
    dead: Counter[Place] = field(default_factory=Counter)
    forwarded: set[Place] = field(default_factory=set)
    duplicates: set[Place] = field(default_factory=set)
    lost: set[Place] = field(default_factory=set)
    identities: set[int] = field(default_factory=set)
    """What the log holds, by kind, source and id."""
    reasons: Counter[str] = field(default_factory=Counter)
    observations: int = 0
    vectors: int = 0
    feature_dead: int = 0
    good: int = 0

    @property
    def placed(self) -> Counter[Place]:
        """How often each record stands somewhere."""
        return self.log + self.quarantine + self.dead

    def places(self) -> dict[str, int]:
        found = {name: sum(getattr(self, name).values()) for name in ("log", "quarantine", "dead")}
        return found | {name: len(getattr(self, name)) for name in ("forwarded", "duplicates", "lost")}

    def summary(self) -> str:
        return f"{len(self.sent)} sent, {len(self.inbound)} inbound: {self.places()}"

    def mistakes(self, counted: Counter[str]) -> list[str]:
        """Whatever is not exactly as it should be."""
        copies = self.inbound - self.sent.keys()
        compared = {
            "records sent and not inbound": (len(self.sent.keys() - self.inbound), 0),
            "records in more than one place": (sum(n > 1 for n in self.placed.values()), 0),
            "records in no place": (len(self.lost), 0),
            "places of no inbound record": (len(self.placed.keys() - self.inbound), 0),
            "copies inbound and records forwarded": (len(copies), len(self.forwarded)),
            "log and metrics": (sum(self.log.values()), counted["accepted"] + counted["revised"]),
            "quarantine and metrics": (sum(self.quarantine.values()), counted["quarantined"]),
            "forwarded and metrics": (len(self.forwarded), counted["forwarded"]),
            "duplicates and metrics": (len(self.duplicates), counted["duplicate"]),
        }
        return unequal(compared)

    def vector_mistakes(self) -> list[str]:
        """Whatever feature has not made of the log."""
        vectors = self.observations, self.vectors + self.feature_dead
        return unequal(
            {"observations and vectors": vectors, "feature's dead letters": (self.feature_dead, 0)}
        )


def unequal(compared: dict[str, tuple[int, int]]) -> list[str]:
    return [f"{what}: {one}, {other}" for what, (one, other) in compared.items() if one != other]


async def records_of(kafka: KafkaSettings, topic: str, partitions: int = PARTITIONS) -> AsyncIterator:
    """Committed records of a topic, as the kernel's consumers read them."""
    consumer = await started_reader(kafka)
    deliver_records(consumer)
    try:
        for number in range(partitions):
            partition = TopicPartition(topic, number)
            consumer.assign([partition])
            begin, end = await bounds(consumer, partition)
            consumer.seek(partition, begin)
            while await consumer.position(partition) < end:
                for record in (await consumer.getmany(partition, timeout_ms=500)).get(partition, []):
                    yield record
    finally:
        await close_quietly(consumer)


async def settled(kafka: KafkaSettings, name: str, alive: Callable[[], bool], groups: Sequence[str]) -> None:
    """Wait until ingest has handled all inbound records, its own forwards too, and feature the log."""
    admin = admin_client(kafka)
    await admin.start()
    consumer = await started_reader(kafka)
    sources = {"everloop-ingest": "producer-record-published", "everloop-feature": "ingest-record-accepted"}
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            for group in groups:
                topic = f"{sources[group]}-v1.{name}"
                wanted = [TopicPartition(topic, number) for number in range(PARTITIONS)]
                while await behind(admin, consumer, group, wanted):
                    if not alive():
                        raise RuntimeError(f"a service has ended, {group} is not through")
                    await asyncio.sleep(1)
    finally:
        await close_quietly(consumer)
        await close_quietly(admin)


async def behind(admin, consumer, group: str, wanted: list[TopicPartition]) -> int:
    done = await committed_offsets(admin, group, wanted)
    ends = await consumer.end_offsets(wanted)
    return sum(end - done.get(each, (0, ""))[0] for each, end in ends.items())


async def read(kafka: KafkaSettings, name: str, sent: Counter[Place]) -> Ledger:
    """The ledger of a pipeline's topics."""
    ledger = Ledger(sent)
    await read_log(kafka, name, ledger)
    async for record in records_of(kafka, f"ingest-record-quarantined-v1.{name}"):
        found = json.loads(record.value)
        ledger.quarantine[found["inbound_partition"], found["inbound_offset"]] += 1
        ledger.reasons[found["reason"]] += 1
    async for record in records_of(kafka, "everloop-ingest-dlq", 1):
        about = dict(record.headers[-7:])
        ledger.dead[int(about["everloop-dlq-partition"]), int(about["everloop-dlq-offset"])] += 1
    async for _ in records_of(kafka, f"feature-vector-computed-v1.{name}"):
        ledger.vectors += 1
    async for _ in records_of(kafka, "everloop-feature-dlq", 1):
        ledger.feature_dead += 1
    await read_inbound(kafka, name, ledger)
    return ledger


async def read_log(kafka: KafkaSettings, name: str, ledger: Ledger) -> None:
    async for record in records_of(kafka, f"ingest-record-accepted-v1.{name}"):
        partition, _, offset = dict(record.headers)["ce_id"].decode().partition("-")
        ledger.log[int(partition), int(offset)] += 1
        entry = json.loads(record.value)
        ledger.observations += entry["kind"] == "observation"
        ledger.good += entry["id"] == "good"
        what = "retraction" if entry.get("retraction") else entry["kind"]
        ledger.identities.add(hash((what, entry["source"], entry["id"])))


async def read_inbound(kafka: KafkaSettings, name: str, ledger: Ledger) -> None:
    """Every inbound record; one that stands nowhere is read again, as ingest reads it."""
    contract = Contract(load(PIPELINE.replace("NAME", name)))
    placed, known, now = ledger.placed, ledger.identities, datetime.now(UTC)
    async for record in records_of(kafka, f"producer-record-published-v1.{name}"):
        place = record.partition, record.offset
        ledger.inbound.add(place)
        if place in placed:
            continue
        found = read_record(contract, record.headers, record.value, now)
        outcome = found.outcome
        if isinstance(outcome, Refused):
            ledger.lost.add(place)
        elif partition_of(outcome.key, PARTITIONS) != record.partition:
            ledger.forwarded.add(place)
        elif hash((outcome.kind, found.source, outcome.id)) in known:
            ledger.duplicates.add(place)
        else:
            ledger.lost.add(place)
