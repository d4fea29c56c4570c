"""Send quarantined records again, or put them away: each once, and never without saying who and why."""

import base64
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from aiokafka import TopicPartition
from everloop_kernel.admin import ensure_topics
from everloop_kernel.errors import Fenced
from everloop_kernel.settings import KafkaSettings
from everloop_kernel.stream_writer import Output, PartitionWriter
from everloop_schemas.cloudevents import encode
from everloop_schemas.events import QuarantineResolved, RecordQuarantined
from everloop_schemas.topics import TOPICS

from everloop.errors import EverloopError
from everloop.quarantine.entries import Entry, Wanted, partitions, read_entries, read_resolutions, topic_of
from everloop.quarantine.patches import CannotPatchError, Headers, Patch

__all__ = ["INBOUND", "REPLAY_HEADER", "Order", "Resolved", "mended", "resolve"]

INBOUND: Final = "producer-record-published-v1"
REPLAY_HEADER: Final = "everloop-quarantine-id"
"""On a record that was sent again: which entry it was."""
_WRITER: Final = "everloop-quarantine"
_ENTRIES_AT_ONCE = 500
_BYTES_AT_ONCE = 4_000_000
_KINDS = {"observation": b"io.everloop.observation", "label": b"io.everloop.label"}


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants done, and what the history will say about it."""

    action: Literal["replayed", "discarded"]
    by: str
    reason: str
    patch: Patch | None = None
    limit: int | None = None
    """At most so many entries; None: all."""
    batch: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(slots=True)
class Resolved:
    """What was done: the entries' ids, and those that the patch does not fit, with the reason."""

    ids: list[str] = field(default_factory=list)
    unfit: dict[str, str] = field(default_factory=dict)


async def resolve(kafka: KafkaSettings, pipeline: str, wanted: Wanted, order: Order) -> Resolved:
    """Carry out an order on every wanted entry that nobody has resolved yet.

    An entry's record and its resolution are published in one transaction; another run of this command is
    fenced, and what it had committed is read before anything is sent. So a repeated or interrupted run sends
    nothing twice.
    """
    done = Resolved()
    try:
        async with _writing(kafka, pipeline) as writer:
            entries = read_entries(kafka, pipeline, wanted, await read_resolutions(kafka, pipeline))
            async for outputs in _batches(entries, pipeline, order, done):
                await writer.commit(outputs, None, "")
    except Fenced as error:
        raise EverloopError(
            f"Another `everloop quarantine` has taken {pipeline} over, after {len(done.ids)} records.",
            "Run it again: what was sent is not sent twice.",
        ) from error
    return done


@asynccontextmanager
async def _writing(kafka: KafkaSettings, pipeline: str) -> AsyncIterator[PartitionWriter]:
    """The one writer of a pipeline's resolutions; opening it ends any transaction of another."""
    topic = topic_of(QuarantineResolved.topic, pipeline)
    count = len(await partitions(kafka, RecordQuarantined.topic, pipeline))
    if count:  # a pipeline that was applied before this topic existed
        await ensure_topics(kafka, {topic: (count, TOPICS[QuarantineResolved.topic].config)})
    writer = PartitionWriter(kafka, _WRITER, TopicPartition(topic, 0))
    await writer.open()
    try:
        yield writer
    finally:
        await writer.close()


async def _batches(
    entries: AsyncIterator[Entry], pipeline: str, order: Order, done: Resolved
) -> AsyncIterator[list[Output]]:
    """Outputs of some entries at a time; `done` names an entry once its batch is committed."""
    outputs: list[Output] = []
    ids: list[str] = []
    size = 0
    async for entry in entries:
        if order.limit is not None and len(done.ids) + len(ids) >= order.limit:
            break
        try:
            made = [*_sent_again(entry, pipeline, order), _resolution(entry, order)]
        except CannotPatchError as error:
            done.unfit[entry.id] = str(error)
            continue
        outputs, ids = [*outputs, *made], [*ids, entry.id]
        size += sum(len(one.value or b"") for one in made)
        if len(ids) >= _ENTRIES_AT_ONCE or size >= _BYTES_AT_ONCE:
            yield outputs
            done.ids += ids
            outputs, ids, size = [], [], 0
    if outputs:
        yield outputs
        done.ids += ids


def _sent_again(entry: Entry, pipeline: str, order: Order) -> list[Output]:
    """The record as it came, or mended, on the inbound partition where it came in."""
    if order.action == "discarded":
        return []
    value, headers = mended(entry, order.patch)
    marked = [*headers, (REPLAY_HEADER, entry.id.encode())]
    topic = topic_of(INBOUND, pipeline)
    return [Output(topic, entry.event.inbound_partition, entry.key, value, marked)]  # type: ignore[arg-type]  # null header values are kept


def mended(entry: Entry, patch: Patch | None) -> tuple[bytes, Headers]:
    """What is sent again of an entry: its value and headers. Raises CannotPatchError."""
    headers = _headers(entry.event)
    return (entry.data, headers) if patch is None else patch.mend(entry.data, headers)


def _headers(event: RecordQuarantined) -> Headers:
    """The original headers; where they were not kept, what the record's kind and source say."""
    if event.headers is not None:
        pairs = [(name, None if text is None else base64.b64decode(text)) for name, text in event.headers]
        return [(name, value) for name, value in pairs if name != REPLAY_HEADER]
    if event.kind is None or event.source is None:
        return []
    identity = f"{event.inbound_partition}-{event.inbound_offset}".encode()
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", identity),
        ("ce_source", event.source.encode()),
        ("ce_type", _KINDS[event.kind]),
        ("content-type", b"application/json"),
    ]


def _resolution(entry: Entry, order: Order) -> Output:
    now = datetime.now(UTC)
    event = QuarantineResolved(
        pipeline=entry.event.pipeline,
        inbound_partition=entry.event.inbound_partition,
        inbound_offset=entry.event.inbound_offset,
        action=order.action,
        patch_sha256=order.patch.sha256 if order.patch else None,
        by=order.by,
        reason=order.reason,
        batch=order.batch,
        resolved_at=now,
    )
    value, headers = encode(event, id=entry.id, source=f"/everloop/quarantine/{event.pipeline}", time=now)
    topic = topic_of(QuarantineResolved.topic, event.pipeline)
    return Output(topic, event.inbound_partition, entry.id.encode(), value, headers)
