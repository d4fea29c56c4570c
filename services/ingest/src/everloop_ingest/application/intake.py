"""The worker's use case: a batch of inbound records becomes log, quarantine, forwards and new-data events.

Pure but for the clock it is given: `derive` changes nothing, `apply` makes a derived step the current state.
"""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from aiokafka import ConsumerRecord
from everloop_kernel.stream import DeadLetter, Output, Step
from everloop_schemas.cloudevents import encode
from everloop_schemas.events import DataArrived, RecordAccepted, RecordQuarantined
from everloop_schemas.ids import derived_id
from everloop_schemas.partition import partition_of

from everloop_ingest.application import names
from everloop_ingest.application.reading import Read, read_record
from everloop_ingest.domain.contract import Checked, Contract, Refused
from everloop_ingest.domain.duplicates import DuplicateWindow, identity
from everloop_ingest.domain.tally import Tally

__all__ = ["Intake", "NewState"]

_LARGEST_QUARANTINED = 1_300_000
"""Bytes of a value that still fit the quarantine's record limit of 2 MiB in base64."""
_LARGEST_HEADERS = 50_000
"""Bytes of all headers together."""


class _Entry(msgspec.Struct):
    """A RecordAccepted, as it is written to the log."""

    kind: str
    id: str
    source: str
    event_time: datetime
    known_at: datetime
    fields: msgspec.Struct


class _Stored(msgspec.Struct):
    """What duplicates are recognised by, as it is read from the log."""

    kind: str
    id: str
    source: str
    known_at: datetime


@dataclass(slots=True)
class NewState:
    """What a batch changes, kept apart until its transaction is committed."""

    tally: Tally
    accepted: dict[str, None] = field(default_factory=dict)
    """Identities, in the log's order."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(outcome, reason or kind) → records, for the metrics."""


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
        self._decode = msgspec.json.Decoder(_Stored).decode

    def restore(self, records: Sequence[ConsumerRecord]) -> None:
        """Learn what the log holds from its newest records."""
        stored = [each for record in records if (each := self._stored(record)) is not None]
        self._seen.add(identity(each.kind, each.source, each.id) for each in stored)
        self._tally = self._tally_after(records)

    def _tally_after(self, records: Sequence[ConsumerRecord]) -> Tally:
        """The newest written tally, and what follows it: only the last record of a transaction has one."""
        tally, uncounted = self._tally, list(records)
        for position in range(len(records) - 1, -1, -1):
            written = Tally.read(dict(records[position].headers).get(names.TALLY_HEADER))
            if written is not None:
                tally, uncounted = written, list(records[position + 1 :])
                break
        for stored in filter(None, map(self._stored, uncounted)):
            is_label = stored.kind == "label"
            tally = tally.plus(0 if is_label else 1, 1 if is_label else 0, stored.known_at)
        return tally

    def _stored(self, record: ConsumerRecord) -> _Stored | None:
        """A log record's identity; None for what ingest has not written."""
        try:
            return self._decode(record.value or b"")
        except msgspec.MsgspecError:
            return None

    def derive(self, records: Sequence[ConsumerRecord]) -> Step[NewState]:
        """What follows from a batch, in its order."""
        contract, now = self._contract(), self._clock()
        self._seen.resize(contract.dedupe_records)
        batch = _Batch(self, contract, now, NewState(self._tally))
        for record in records:
            batch.take(record, read_record(contract, record.headers, record.value, now))
        return batch.step()

    def apply(self, state: NewState) -> None:
        """Make the batch's effect the current state."""
        self._tally = state.tally
        self._seen.add(state.accepted)

    def is_known(self, record: str) -> bool:
        """Whether the log holds this record, within the horizon."""
        return record in self._seen

    def entry(self, source: str, checked: Checked, offset: int) -> Output:
        """The log record of an accepted record."""
        value = self._encode(
            _Entry(checked.kind, checked.id, source, checked.event_time, checked.known_at, checked.fields)
        )
        # the event's id says where the record came in: unique, and the same however often it is derived
        headers = [*self._headers, ("ce_id", b"%d-%d" % (self._partition, offset))]
        return Output(self._log, self._partition, checked.key, value, headers)

    def forwarded(self, record: ConsumerRecord, partition: int, key: bytes) -> Output:
        """The record as it came, on the inbound partition that its key belongs to."""
        return Output(self._topic, partition, key, record.value, record.headers)

    def quarantined(self, record: ConsumerRecord, read: Read, refused: Refused, now: datetime) -> Output:
        """The record with every reason why it was refused."""
        event = RecordQuarantined(
            pipeline=self._pipeline,
            reason=refused.violations[0].rule,
            violations=list(refused.violations),
            kind=refused.kind,
            id=refused.id,
            source=read.source,
            quarantined_at=now,
            data_base64=base64.b64encode(record.value or b"").decode(),
            inbound_partition=record.partition,
            inbound_offset=record.offset,
            headers=_kept(record.headers),
        )
        identifier = f"{record.partition}-{record.offset}"
        value, headers = encode(event, id=identifier, source=self._source, time=now)
        return Output(self._quarantine, self._partition, record.key, value, headers)

    def data_arrived(self, tally: Tally, now: datetime) -> Output:
        """The new-data event of this partition."""
        identifier = derived_id(f"{self._log}-{self._partition}-{tally.records}", "data-arrived")
        event = DataArrived(
            id=identifier,
            pipeline=self._pipeline,
            partition=self._partition,
            observations=tally.observations,
            labels=tally.labels,
            known_at=tally.known_at,
        )
        value, headers = encode(event, id=identifier, source=self._source, time=now)
        return Output(names.DATA_ARRIVED_TOPIC, 0, self._pipeline.encode(), value, headers)


def _kept(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, str | None]] | None:
    """The headers as the quarantine keeps them; None for more than its record has room for."""
    if sum(len(name) + len(value or b"") for name, value in headers) > _LARGEST_HEADERS:
        return None
    return [(name, None if value is None else base64.b64encode(value).decode()) for name, value in headers]


class _Batch:
    """One batch being derived."""

    def __init__(self, intake: Intake, contract: Contract, now: datetime, state: NewState) -> None:
        self._intake = intake
        self._contract = contract
        self._now = now
        self._state = state
        self._labels = 0
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
        partition = partition_of(outcome.key, self._contract.partitions)
        if partition != record.partition:
            self._others.append(self._intake.forwarded(record, partition, outcome.key))
            self._state.counts["forwarded", outcome.kind] += 1
            return
        self._accept(record, read.source or "", outcome)

    def _refuse(self, record: ConsumerRecord, read: Read, refused: Refused) -> None:
        reason = refused.violations[0].rule
        if record.value is not None and len(record.value) > _LARGEST_QUARANTINED:
            self._dead.append(DeadLetter(record, reason, refused.violations[0].value))
            return
        self._others.append(self._intake.quarantined(record, read, refused, self._now))
        self._state.counts["quarantined", reason] += 1

    def _accept(self, record: ConsumerRecord, source: str, checked: Checked) -> None:
        name = identity(checked.kind, source, checked.id)
        state = self._state
        if name in state.accepted or self._intake.is_known(name):
            state.counts["duplicate", checked.kind] += 1
            return
        state.accepted[name] = None
        self._log.append(self._intake.entry(source, checked, record.offset))
        self._labels += checked.kind == "label"
        self._known_at = max(self._known_at, checked.known_at)

    def step(self) -> Step[NewState]:
        """The batch's outputs, the tally on the last log record."""
        state, accepted = self._state, len(self._log)
        before = state.tally
        tally = state.tally = before.plus(accepted - self._labels, self._labels, self._known_at)
        state.counts["accepted", "observation"] += accepted - self._labels
        state.counts["accepted", "label"] += self._labels
        if self._log:
            last = self._log[-1]
            headers = [*last.headers, (names.TALLY_HEADER, tally.written())]
            self._log[-1] = last._replace(headers=headers)
        outputs = [*self._log, *self._others]
        if tally.crossed(before, self._contract.notify_every):
            outputs.append(self._intake.data_arrived(tally, self._now))
        return Step(outputs, self._dead, state)
