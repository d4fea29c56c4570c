"""What the data plane left on its topics, and what an in-process replay makes of its log."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import msgspec
from aiokafka import ConsumerRecord, TopicPartition
from chaos.data_plane_records import NAME, PARTITIONS, PIPELINE
from everloop_features import Compiled, LogRecord, State, decode, derive, replay
from everloop_features import compile as compile_features
from everloop_features.packing import (
    CLOCK,
    DEFINITION,
    PENDING,
    SETTLED,
    definition_key,
    position_in,
    split_key,
)
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import load
from everloop_schemas.topics import dead_letter_topic

__all__ = ["Left", "read_all"]

Records = list[ConsumerRecord]
_LOG_OFFSET = re.compile(rb'"log_offset":\d+,')


@dataclass(frozen=True)
class Left:
    """Every committed record of a data plane's topics, by partition."""

    inbound: list[Records]
    log: list[Records]
    vectors: list[Records]
    state: list[Records]
    quarantine: list[Records]
    dead: list[Records]

    def log_values(self) -> list[list[tuple[bytes, bytes]]]:
        """Key and value of each log record, in order."""
        return [[(each.key, each.value) for each in records] for records in self.log]

    def vector_values(self) -> list[list[tuple[bytes, bytes]]]:
        """Key and value of each vector in order, without the log offset (transaction markers take some)."""
        return [
            [(each.key, _LOG_OFFSET.sub(b"", each.value, count=1)) for each in records]
            for records in self.vectors
        ]

    def replayed_vectors(self) -> Iterator[list[tuple[bytes, bytes, bytes]]]:
        """By partition, what `vectors` holds if each was published once: key, event id and value."""
        compiled = _compiled()
        for partition, records in enumerate(self.log):
            keys = {each.offset: each.key for each in records}
            yield [
                (keys[vector.offset], b"v1-%d-%d" % (partition, vector.offset), _event(partition, vector))
                for vector in replay(compiled, _entries(records))
            ]

    def published_vectors(self) -> Iterator[list[tuple[bytes, bytes, bytes]]]:
        """By partition: key, event id and value of each vector."""
        for records in self.vectors:
            yield [(each.key, dict(each.headers)["ce_id"], each.value) for each in records]

    def tables(self) -> Iterator[dict[bytes, bytes]]:
        """By partition, what compaction would leave of the state topic, without the definition."""
        for records in self.state:
            newest = {each.key: each.value for each in records}
            assert newest.pop(definition_key(1)) is not None
            yield {key: value for key, value in newest.items() if value is not None}

    def replayed_tables(self) -> Iterator[dict[bytes, bytes]]:
        """By partition, the state after the log, in transactions that end where those of the stream ended."""
        for log, state in zip(self.log, self.state, strict=True):
            yield dict(_replayed_state(_entries(log), _cuts(state)).dump())

    def groups(self) -> list[dict[bytes, bytes]]:
        """The part of the tables that no transaction's place decides: every aggregate's state."""
        places = {CLOCK, DEFINITION, PENDING, SETTLED}
        return [
            {key: value for key, value in table.items() if split_key(key)[0] not in places}
            for table in self.tables()
        ]

    def quarantined_at(self) -> Counter[tuple[int, int]]:
        """How often each inbound place was set aside."""
        found: Counter[tuple[int, int]] = Counter()
        for each in (each for records in self.quarantine for each in records):
            place = msgspec.json.decode(each.value, type=_Place)
            found[place.inbound_partition, place.inbound_offset] += 1
        return found


class _Place(msgspec.Struct):
    inbound_partition: int
    inbound_offset: int


async def read_all(kafka: KafkaSettings) -> Left:
    """Read every topic to its end."""

    async def read(topic: str, partitions: int = PARTITIONS) -> list[Records]:
        return [
            [r async for page in read_to_end(kafka, TopicPartition(topic, number)) for r in page]
            for number in range(partitions)
        ]

    return Left(
        inbound=await read(f"producer-record-published-v1.{NAME}"),
        log=await read(f"ingest-record-accepted-v1.{NAME}"),
        vectors=await read(f"feature-vector-computed-v1.{NAME}"),
        state=await read(f"feature-state-changed-v1.{NAME}"),
        quarantine=await read(f"ingest-record-quarantined-v1.{NAME}"),
        dead=[(await read(dead_letter_topic(f"everloop-{each}"), 1))[0] for each in ("ingest", "feature")],
    )


def _compiled() -> Compiled:
    compiled = compile_features(load(PIPELINE))
    assert isinstance(compiled, Compiled)
    return compiled


def _entries(records: Records) -> list[tuple[int, LogRecord]]:
    return [(each.offset, decode(each.value)) for each in records]


def _event(partition: int, vector: object) -> bytes:
    """A vector's event, built without the service's own writer."""
    found = msgspec.to_builtins(vector)
    head = {
        "id": found["id"],
        "pipeline_version": 1,
        "log_partition": partition,
        "log_offset": found["offset"],
    }
    return msgspec.json.encode(head | {name: found[name] for name in ("event_time", "known_at", "values")})


def _cuts(state: Records) -> list[int]:
    """The log offsets at which transactions ended: each wrote its own into the clock entry."""
    return [position_in(each.key, each.value) for each in state if split_key(each.key)[0] == CLOCK]


def _replayed_state(entries: list[tuple[int, LogRecord]], cuts: list[int]) -> State:
    """From nothing, batch by batch; a cut that does not go forward would be a batch done twice."""
    assert all(before < after for before, after in pairwise(cuts)), cuts
    compiled = _compiled()
    state = compiled.new_state(version=1)
    batches: defaultdict[int, list[tuple[int, LogRecord]]] = defaultdict(list)
    ends = iter(cuts)
    end = next(ends)
    for entry in entries:
        while entry[0] >= end:
            end = next(ends)
        batches[end].append(entry)
    for batch in batches.values():
        overlay = state.begin()
        assert all(vector is not None for vector in derive(compiled, batch, overlay))
        state.merge(overlay)
    return state
