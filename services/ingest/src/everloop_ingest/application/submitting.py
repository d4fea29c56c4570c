"""The HTTP edge's use case: check rows, publish the good ones, say what became of each."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from everloop_schemas.cloudevents import Rejected, envelope
from everloop_schemas.events import Violation
from everloop_schemas.partition import partition_of

from everloop_ingest.application import names
from everloop_ingest.application.reading import LONGEST_SOURCE, is_source, read_data, refused
from everloop_ingest.application.results import Results
from everloop_ingest.domain.contract import Checked, Contract, Kind, Refused
from everloop_ingest.domain.glance import Glance, Seen

__all__ = [
    "InboundRecord",
    "Interrupted",
    "Overloaded",
    "Publish",
    "Sender",
    "Submission",
    "Unavailable",
    "submit",
    "submit_block",
    "wrong_attribute",
]

_BLOCKS_UNDER_WAY: Final = 4
"""Blocks of one request that may wait for the broker at once."""
_STRUCTURED: Final = [("content-type", b"application/cloudevents+json")]


_Headers = Sequence[tuple[str, bytes]]


class Unavailable(Exception):  # noqa: N818  (it states what is the case)
    """The broker has not acknowledged the records in time; they may or may not have been stored."""


class Overloaded(Exception):  # noqa: N818  (same)
    """More records wait for the broker than may be held; these have not been taken."""


class Interrupted(Exception):  # noqa: N818  (same)
    """Not every row was published: `cause` says why, `results` what is known of those before."""

    def __init__(self, cause: Exception, results: Results) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.results = results


class InboundRecord(NamedTuple):
    """A record for the inbound topic."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


Publish = Callable[[str, Sequence[InboundRecord]], Awaitable[None]]
"""Publish on a topic and return after the broker's acknowledgement; raises Unavailable and Overloaded."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends the rows, and how."""

    source: str
    """The CloudEvents source of rows that do not name their own."""
    may_replay: bool
    """Whether its rows may say when they were known."""
    headers: Sequence[tuple[str, bytes]] = ()
    """Headers for every record, such as the trace context."""
    structured: bool = False
    """Whether each row is a whole CloudEvent, with its data inside."""


_Read = tuple[Checked | Refused, bytes, _Headers]
"""A row's outcome, and what is published of it: its data and its headers, without the id."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a request's rows are to become."""

    contract: Contract
    kind: Kind
    sender: Sender

    @property
    def topic(self) -> str:
        """Where they are published."""
        return f"{names.INBOUND}.{self.contract.pipeline}"


async def submit(
    submission: Submission,
    blocks: AsyncIterator[Sequence[bytes]],
    *,
    clock: Callable[[], datetime],
    publish: Publish,
) -> Results:
    """Publish what meets the contract, block by block as it comes; each row's result, in order.

    A duplicate is accepted here and dropped by the worker, which alone sees every copy of an id. Raises
    Interrupted, once nothing of the request is under way any more.
    """
    results = Results()
    under_way: deque[asyncio.Task[None]] = deque()
    try:
        async for rows in blocks:
            records = _checked(submission, rows, clock(), results)
            if records:
                under_way.append(asyncio.create_task(_published(publish, submission.topic, records)))
            while len(under_way) >= _BLOCKS_UNDER_WAY:
                await under_way.popleft()
            await asyncio.sleep(0)  # a large body must not hold up the worker or other requests
        while under_way:
            await under_way.popleft()
    except Exception as error:
        raise Interrupted(error, results) from error
    finally:
        await _settled(under_way)
    return results


async def submit_block(
    submission: Submission,
    rows: Sequence[bytes],
    *,
    clock: Callable[[], datetime],
    publish: Publish,
) -> Results:
    """`submit` for rows that are one block: the usual request."""
    results = Results()
    records = _checked(submission, rows, clock(), results)
    try:
        if records:
            await publish(submission.topic, records)
    except (Unavailable, Overloaded) as error:
        raise Interrupted(error, results) from error
    return results


async def _published(publish: Publish, topic: str, records: Sequence[InboundRecord]) -> None:
    await publish(topic, records)


async def _settled(under_way: Sequence[asyncio.Task[None]]) -> None:
    """Wait for what can no longer be called back, so that its failure is not a stray one."""
    if under_way:
        await asyncio.gather(*under_way, return_exceptions=True)


def _checked(
    submission: Submission, rows: Sequence[bytes], now: datetime, results: Results
) -> list[InboundRecord]:
    """The records of a block that may be published; every row's result is noted."""
    kind, partitions = submission.kind, submission.contract.partitions
    common = _common_headers(kind, submission.sender.source, submission.sender.headers)
    glance, replays = _glance(submission)
    read = _event if submission.sender.structured else _plain
    records: list[InboundRecord] = []
    for row in rows:
        value, headers = row, common
        outcome: Seen | Checked | Refused | None = None
        if glance is not None:
            outcome = glance.at(row, now, replays=replays)
        if outcome is None:
            outcome, value, headers = read(submission, row, now, common)
        if isinstance(outcome, Refused) and outcome.action == "refuse":
            results.refuse(outcome)
            continue
        identity = ("ce_id", f"{kind}-{outcome.id}".encode())
        partition = partition_of(outcome.key, partitions)
        records.append(InboundRecord(partition, outcome.key, value, [identity, *headers]))
        _accept(results, outcome)
    return records


def _accept(results: Results, outcome: Seen | Checked | Refused) -> None:
    """Note that a row is published, and what its pipeline says against it."""
    if isinstance(outcome, Refused):
        results.accept(outcome.id or "", quarantine=outcome.violations)
    elif isinstance(outcome, Checked) and outcome.warnings:
        results.accept(outcome.id, warnings=outcome.warnings)
    else:
        results.accept(outcome.id)


def _glance(submission: Submission) -> tuple[Glance | None, bool]:
    """The quick look at plain rows, if there is one; and whether they may say when they were known."""
    contract, sender = submission.contract, submission.sender
    replays = sender.may_replay and contract.may_replay(sender.source)
    return (None if sender.structured else contract.glances.get(submission.kind)), replays


def _plain(submission: Submission, row: bytes, now: datetime, common: _Headers) -> _Read:
    """The outcome of a row that is the record itself."""
    sender = submission.sender
    outcome = read_data(
        submission.contract,
        submission.kind,
        row,
        source=sender.source,
        now=now,
        may_replay=sender.may_replay,
    )
    return outcome, row, common


def _event(submission: Submission, row: bytes, now: datetime, common: _Headers) -> _Read:
    """The outcome of a structured CloudEvent, its data, and the headers it is published with."""
    kind, sender = submission.kind, submission.sender
    found = envelope(_STRUCTURED, row)
    if isinstance(found, Rejected):
        return refused(found, kind), row, common
    source = found.source or ""
    wrong = wrong_attribute(source, found.type or "", kind)
    if wrong is not None:
        return wrong, row, common
    outcome = read_data(
        submission.contract, kind, found.data, source=source, now=now, may_replay=sender.may_replay
    )
    own = [("traceparent", found.traceparent.encode())] if found.traceparent else sender.headers
    return outcome, found.data, _common_headers(kind, source, own)


def wrong_attribute(source: str, type_name: str, kind: Kind) -> Refused | None:
    """Why an event of this source and type cannot be taken as a `kind`, or None."""
    if not is_source(source):
        mend = f"name the source in 1 to {LONGEST_SOURCE} printable characters"
        return _refused("source", source, "source", mend, kind)
    if type_name != f"io.everloop.{kind}":
        mend = f"send events of the type io.everloop.{kind} here"
        return _refused("type", type_name, "unknown-type", mend, kind)
    return None


def _refused(field: str, value: str, rule: str, mend: str, kind: Kind) -> Refused:
    return Refused([Violation(field=field, value=value[:200], rule=rule, mend=mend)], kind, None)


def _common_headers(kind: Kind, source: str, more: _Headers) -> _Headers:
    """Every header but the id."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_source", source.encode()),
        ("ce_type", f"io.everloop.{kind}".encode()),
        ("content-type", b"application/json"),
        *more,
    ]
