"""The worker's use case: a batch of inbound records becomes log, quarantine and forwards.

Pure but for the clock it is given: `derive` changes nothing, `apply` makes a derived step the current state.
"""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from aiokafka import ConsumerRecord
from everloop_kernel.kafka import MAX_RECORD_BYTES
from everloop_kernel.stream import DeadLetter, Output, Step
from everloop_schemas.cloudevents import encode
from everloop_schemas.events import RecordAccepted, RecordQuarantined, Violation
from everloop_schemas.partition import partition_of

from everloop_ingest.application import names
from everloop_ingest.application.log_entries import LogEntry, entry_of, judge, read_entry, take
from everloop_ingest.application.reading import Read, read_record
from everloop_ingest.domain.contract import Checked, Contract, Kind, Refused
from everloop_ingest.domain.duplicates import DuplicateWindow, Recent
from everloop_ingest.domain.tally import Tally

__all__ = ["Intake", "NewState"]

_LARGEST_QUARANTINED = 1_300_000
"""Bytes of a value that still fit the quarantine's record limit of 2 MiB in base64."""
_LARGEST_HEADERS = 50_000
"""Bytes of all headers together."""
_HEADER_BYTES = 16
"""What a header takes beside its name and value, at most."""
_LARGEST_PASSED_ON = MAX_RECORD_BYTES - (64 << 10)
"""Bytes of a record that still fits the topics it is written to, with what ingest adds to it."""


@dataclass(slots=True)
class NewState:
    """What a batch changes, kept apart until its transaction is committed."""

    tally: Tally
    recent: Recent
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(outcome, reason or kind) → records, for the metrics."""
    warnings: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(field, rule) → accepted records that break it, for the metrics."""
    checked: list[Checked] = field(default_factory=list)
    """What was accepted, for the data gates; and, in pipeline time, when duplicates and refused ones came."""
    duplicates: list[datetime] = field(default_factory=list)
    quarantined: list[datetime] = field(default_factory=list)
    announces: bool = False
    """Whether new data is to be announced."""


class Intake:
    """One inbound partition and the log partition of the same number."""

    def __init__(
        self, contract: Callable[[], Contract], topic: str, partition: int, clock: Callable[[], datetime]
    ) -> None:
        self._contract = contract
        self._pipeline = names.pipeline_of(topic)
        self._topic = topic
        self._partition = partition
        self._clock = clock
        self._log = f"{names.LOG}.{self._pipeline}"
        self._quarantine = f"{names.QUARANTINE}.{self._pipeline}"
        self._source = names.source_of(self._pipeline)
        self._headers = (
            ("ce_specversion", b"1.0"),
            ("ce_type", RecordAccepted.type_name().encode()),
            ("ce_source", self._source.encode()),
            ("content-type", b"application/json"),
        )
        self._seen = DuplicateWindow(contract().dedupe_records)
        self._tally = Tally()
        self._encode = msgspec.json.Encoder().encode

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Learn what the log holds from its newest records."""
        recent = Recent(self._seen)
        for entry in filter(None, (read_entry(record.value) for record in records)):
            take(entry, recent)
        self._seen.take(recent.changes)
        self._tally = self._tally_after(records)

    def _tally_after(self, records: Sequence[ConsumerRecord]) -> Tally:
        """The newest written tally, and what follows it: only the last record of a transaction has one."""
        tally, uncounted = self._tally, list(records)
        for position in range(len(records) - 1, -1, -1):
            written = Tally.read(dict(records[position].headers).get(names.TALLY_HEADER))
            if written is not None:
                tally, uncounted = written, list(records[position + 1 :])
                break
        for entry in filter(None, (read_entry(record.value) for record in uncounted)):
            kinds = int(entry.what == "observation"), int(entry.what == "label")
            tally = tally.plus(*kinds, entry.known_at)
        return tally

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[NewState]:
        """What follows from a batch, in its order."""
        contract, now = self._contract(), self._clock()
        self._seen.resize(contract.dedupe_records)
        batch = _Batch(self, contract, now, NewState(self._tally, Recent(self._seen)))
        for record in records:
            batch.take(record, read_record(contract, record.headers, record.value, now))
        return batch.step()

    def apply(self, state: NewState) -> None:
        """Make the batch's effect the current state."""
        self._tally = state.tally
        self._seen.take(state.recent.changes)

    def logged(self, entry: LogEntry, key: bytes, offset: int) -> Output:
        """The log record of an accepted record."""
        value = self._encode(entry)
        # the event's id says where the record came in: unique, and the same however often it is derived
        headers = [*self._headers, ("ce_id", b"%d-%d" % (self._partition, offset))]
        return Output(self._log, self._partition, key, value, headers)

    def forwarded(self, record: ConsumerRecord, partition: int, key: bytes) -> Output:
        """The record as it came, on the inbound partition that its key belongs to."""
        return Output(self._topic, partition, key, record.value, record.headers)

    def quarantined(self, record: ConsumerRecord, read: Read, refused: Refused, now: datetime) -> Output:
        """The record with every reason why it was refused."""
        event = RecordQuarantined(
            pipeline=self._pipeline,
            reason=refused.violations[0].rule,
            violations=list(refused.violations),
            kind="label" if refused.kind == "retraction" else refused.kind,
            id=refused.id,
            source=read.source,
            quarantined_at=now,
            data_base64=base64.b64encode(record.value or b"").decode(),
            inbound_partition=record.partition,
            inbound_offset=record.offset,
            retraction=refused.kind == "retraction",
            headers=_kept(record.headers),
        )
        identifier = f"{record.partition}-{record.offset}"
        value, headers = encode(event, id=identifier, source=self._source, time=now)
        return Output(self._quarantine, self._partition, record.key, value, headers)


def _kept(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | None]] | None:
    """The headers as the quarantine keeps them; None for more than its record has room for."""
    if _header_bytes(headers) > _LARGEST_HEADERS:
        return None
    return [(name, None if value is None else base64.b64encode(value).decode()) for name, value in headers]


def _header_bytes(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum([len(name) + len(value or b"") + _HEADER_BYTES for name, value in headers])


def _bytes_of(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    return len(key or b"") + len(value or b"") + _header_bytes(headers)


class _Batch:
    """One batch being derived."""

    def __init__(self, intake: Intake, contract: Contract, now: datetime, state: NewState) -> None:
        self._intake = intake
        self._contract = contract
        self._now = now
        self._state = state
        self._kinds: Counter[Kind] = Counter()
        self._known_at = state.tally.known_at
        self._log: list[Output] = []
        self._others: list[Output] = []
        self._dead: list[DeadLetter] = []

    def take(self, record: ConsumerRecord, read: Read) -> None:
        """Decide where one record goes."""
        outcome = read.outcome
        if isinstance(outcome, Refused):
            self._refuse(record, read, outcome)
            return
        size = _bytes_of(outcome.key, record.value, record.headers)
        if size > _LARGEST_PASSED_ON:
            self._refuse(record, read, Refused([_too_large(size)], outcome.kind, outcome.id))
            return
        partition = partition_of(outcome.key, self._contract.partitions)
        if partition != record.partition:
            self._others.append(self._intake.forwarded(record, partition, outcome.key))
            self._state.counts["forwarded", outcome.kind] += 1
            return
        self._judge(record, read, outcome)

    def _refuse(self, record: ConsumerRecord, read: Read, refused: Refused) -> None:
        """Into the quarantine; what does not fit it, into the dead letters."""
        first = refused.violations[0]
        reason = first.rule
        entry = None
        if record.value is None or len(record.value) <= _LARGEST_QUARANTINED:
            entry = self._intake.quarantined(record, read, refused, self._now)
        if entry is None or _bytes_of(entry.key, entry.value, entry.headers) > _LARGEST_PASSED_ON:
            self._dead.append(DeadLetter(record, reason, first.value, is_senders=True))
            return
        self._others.append(entry)
        self._state.counts["quarantined", reason] += 1
        self._state.quarantined.append(self._known_at)

    def _judge(self, record: ConsumerRecord, read: Read, checked: Checked) -> None:
        """Hold a record that meets the contract against what the log holds."""
        entry, counts = entry_of(read.source or "", checked), self._state.counts
        verdict = judge(entry, self._state.recent)
        if verdict == "duplicate":
            counts["duplicate", checked.kind] += 1
            self._state.duplicates.append(checked.known_at)
        elif verdict == "conflict":
            self._refuse(record, read, Refused([_conflict(checked)], checked.kind, checked.id))
        else:
            counts["revised" if verdict == "revision" else "accepted", checked.kind] += 1
            self._accept(record, entry, checked)

    def _accept(self, record: ConsumerRecord, entry: LogEntry, checked: Checked) -> None:
        self._log.append(self._intake.logged(entry, checked.key, record.offset))
        self._kinds[checked.kind] += 1
        if checked.kind != "retraction":
            self._state.checked.append(checked)
        self._known_at = max(self._known_at, checked.known_at)
        for violation in checked.warnings:
            self._state.warnings[violation.field or "", violation.rule] += 1

    def step(self) -> Step[NewState]:
        """The batch's outputs, the tally on the last log record."""
        state, kinds = self._state, self._kinds
        before = state.tally
        tally = state.tally = before.plus(kinds["observation"], kinds["label"], self._known_at)
        if self._log:
            last = self._log[-1]
            headers = [*last.headers, (names.TALLY_HEADER, tally.written())]
            self._log[-1] = last._replace(headers=headers)
        state.announces = tally.crossed(before, self._contract.notify_every)
        return Step([*self._log, *self._others], self._dead, state)


def _too_large(size: int) -> Violation:
    text = f"{size} bytes with key and headers; at most {_LARGEST_PASSED_ON} are passed on"
    return Violation(field=None, value=text, rule="too-large", mend="send smaller records")


def _conflict(checked: Checked) -> Violation:
    mends = {
        "observation": "send a new id, or retract it first and send it then",
        "label": "send a known_at that is not before the known one's",
    }
    mend = f"other content of this id and source is in the log: {mends.get(checked.kind, '')}"
    return Violation(field="id", value=checked.id, rule="conflict", mend=mend)
