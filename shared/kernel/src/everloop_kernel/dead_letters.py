"""Dead letters: records that no retry can help, kept with their bytes, headers and the reason."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from aiokafka import ConsumerRecord, TopicPartition

from everloop_kernel.errors import EverloopError
from everloop_kernel.kafka import admin_client, close_quietly, committed_offsets
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings, PlatformSettings
from everloop_kernel.stream_writer import Output, PartitionWriter

__all__ = [
    "DeadLetter",
    "DeadLetterLimit",
    "DeadLetterLimitExceeded",
    "Replayed",
    "StoredDeadLetter",
    "dead_letter_topic",
    "list_",
    "replay",
    "show",
]

_PREFIX = "everloop-dlq-"
_RECENT_RECORDS = 10_000
_REPLAY_RECORDS = 500
_ABOUT = ("reason", "detail", "topic", "partition", "offset", "group", "at")
_LONGEST_REASON = 1000


def dead_letter_topic(group: str) -> str:
    """Where the group's dead letters go; it has one partition."""
    return f"{group}-dlq"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be handled: `reason_code` is stable, `reason` is for people.

    `is_senders` says that only its sender can have made it so (its size, say): that tells nothing about this
    service, so the limit passes it over. Otherwise whoever may write to a topic could stop its consumer.
    """

    record: ConsumerRecord
    reason_code: str
    reason: str
    is_senders: bool = False

    def output(self, group: str) -> Output:
        """The record with its original key, value and headers; ours, which say why it is here, come last."""
        about = (
            self.reason_code,
            self.reason[:_LONGEST_REASON],
            self.record.topic,
            str(self.record.partition),
            str(self.record.offset),
            group,
            datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        )
        ours = [
            (_PREFIX + name, text.encode("utf-8", "replace"))
            for name, text in zip(_ABOUT, about, strict=True)
        ]
        headers = [*self.record.headers, *ours]
        return Output(dead_letter_topic(group), 0, self.record.key, self.record.value, headers)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: how many records it published, and which positions it could not."""

    published: int
    left: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter as it lies on its topic."""

    position: int
    reason_code: str
    reason: str
    topic: str
    partition: int
    offset: int
    at: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    replayed: bool

    @classmethod
    def read(cls, record: ConsumerRecord, *, replayed: bool) -> Self:
        """Take a stored record apart: our headers are the last ones, whatever the others are named."""
        named = [(name.removeprefix(_PREFIX), value or b"") for name, value in record.headers[-len(_ABOUT) :]]
        foreign = tuple(name for name, _ in named) != _ABOUT
        about = {} if foreign else {name: value.decode("utf-8", "replace") for name, value in named}
        partition = _number(about.get("partition", ""))
        return cls(
            position=record.offset,
            reason_code=about.get("reason", "unknown"),
            reason=about.get("detail", ""),
            topic=about.get("topic", ""),
            partition=partition,
            offset=_number(about.get("offset", "")),
            at=about.get("at", ""),
            key=record.key,
            value=record.value,
            headers=record.headers if foreign else record.headers[: -len(_ABOUT)],
            replayed=replayed and partition >= 0,  # others were passed over
        )


def _number(text: str) -> int:
    """A number that we wrote; -1 for what somebody else did."""
    return int(text) if text.isascii() and text.isdigit() else -1


async def list_(kafka: KafkaSettings, group: str, *, last: int = 1000) -> list[StoredDeadLetter]:
    """The newest dead letters of `group`, oldest first; those already replayed are marked so."""
    done = await _replayed_up_to(kafka, group)
    return [
        StoredDeadLetter.read(record, replayed=record.offset < done)
        async for page in read_to_end(kafka, TopicPartition(dead_letter_topic(group), 0), last=last)
        for record in page
    ]


async def show(kafka: KafkaSettings, group: str, position: int) -> StoredDeadLetter | None:
    """One dead letter by its offset on the dead-letter topic; None if there is none."""
    done = await _replayed_up_to(kafka, group)
    partition = TopicPartition(dead_letter_topic(group), 0)
    async for page in read_to_end(kafka, partition, start=position):
        first = page[0]
        return (
            StoredDeadLetter.read(first, replayed=first.offset < done) if first.offset == position else None
        )
    return None


async def replay(kafka: KafkaSettings, group: str, *, to: int | None = None) -> Replayed:
    """Publish dead letters again on their original topics, in order.

    Each goes out in one transaction with the offset that remembers it, under the group `<group>-dlq-replay`:
    a replay that is repeated or interrupted publishes nothing twice. `to` is the last offset to replay.
    One whose origin is no partition there is, because somebody else wrote it or its topic was deleted, is
    passed over and named; it stays on its topic.
    """
    topic = TopicPartition(dead_letter_topic(group), 0)
    async with _replaying(kafka, group, topic) as writer:
        start, places = await _replayed_up_to(kafka, group), await _partitions(kafka)
        count, left = 0, list[int]()
        async for page in read_to_end(kafka, topic, start=start):
            wanted = [record for record in page if to is None or record.offset <= to]
            for first in range(0, len(wanted), _REPLAY_RECORDS):
                records = wanted[first : first + _REPLAY_RECORDS]
                letters = [StoredDeadLetter.read(record, replayed=False) for record in records]
                outputs = [_original(one) for one in letters if (one.topic, one.partition) in places]
                await writer.commit(outputs, records[-1].offset + 1, "")
                count += len(outputs)
                left += [one.position for one in letters if (one.topic, one.partition) not in places]
        return Replayed(count, tuple(left))


@asynccontextmanager
async def _replaying(
    kafka: KafkaSettings, group: str, topic: TopicPartition
) -> AsyncIterator[PartitionWriter]:
    writer = PartitionWriter(kafka, _replay_group(group), topic)
    await writer.open()
    try:
        yield writer
    finally:
        await writer.close()


def _original(letter: StoredDeadLetter) -> Output:
    headers: Any = letter.headers
    return Output(letter.topic, letter.partition, letter.key, letter.value, headers)


def _replay_group(group: str) -> str:
    return f"{dead_letter_topic(group)}-replay"


async def _partitions(kafka: KafkaSettings) -> set[tuple[str, int]]:
    """Every partition that the broker has."""
    admin = admin_client(kafka)
    await admin.start()
    try:
        described = await admin.describe_topics()
    finally:
        await close_quietly(admin)
    return {(topic["topic"], each["partition"]) for topic in described for each in topic["partitions"]}


async def _replayed_up_to(kafka: KafkaSettings, group: str) -> int:
    admin = admin_client(kafka)
    await admin.start()
    try:
        topic = TopicPartition(dead_letter_topic(group), 0)
        found = await committed_offsets(admin, _replay_group(group), [topic])
        return found[topic][0] if topic in found else 0
    finally:
        await close_quietly(admin)


def _ours(dead: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Those that may tell something about this service."""
    return [letter for letter in dead if not letter.is_senders]


class DeadLetterLimitExceeded(EverloopError):  # noqa: N818  (it states what happened)
    """So much was refused that single records cannot be the cause: stop and let people look."""


class DeadLetterLimit:
    """The share of dead letters among the records seen last; over it, nothing more is set aside.

    The check comes before the commit: what exceeded the limit stays in its topic, for after a restart.
    """

    def __init__(self, group: str, platform: PlatformSettings, recent_records: int = _RECENT_RECORDS) -> None:
        self._group = group
        self._share = platform.dead_letter_limit_share
        self._count = platform.dead_letter_limit_count
        self._recent_records = recent_records
        self._batches: deque[tuple[int, int]] = deque()
        self._seen = 0
        self._dead = 0

    def check(self, records: int, dead: Sequence[DeadLetter]) -> None:
        """Whether a batch with these dead letters may be committed; raises `DeadLetterLimitExceeded`."""
        ours = _ours(dead)
        seen, total = self._seen + records, self._dead + len(ours)
        if ours and total > self._count and total > self._share * seen:
            raise DeadLetterLimitExceeded(self._message(ours[-1], seen, total))

    def count(self, records: int, dead: Sequence[DeadLetter]) -> None:
        """Remember a committed batch."""
        found = len(_ours(dead))
        self._batches.append((records, found))
        self._seen += records
        self._dead += found
        while self._seen - self._batches[0][0] >= self._recent_records:
            old_records, old_dead = self._batches.popleft()
            self._seen -= old_records
            self._dead -= old_dead

    def _message(self, latest: DeadLetter, seen: int, dead: int) -> str:
        return (
            f"{dead} of the last {seen} records of {self._group} would become dead letters "
            f"(limit {self._count} and a share of {self._share:g}); the latest, "
            f"{latest.record.topic}-{latest.record.partition} at {latest.record.offset}: {latest.reason} "
            f"({latest.reason_code}). Nothing is skipped: mend the cause, or raise "
            "EVERLOOP_DEAD_LETTER_LIMIT_COUNT or EVERLOOP_DEAD_LETTER_LIMIT_SHARE, and start again"
        )
