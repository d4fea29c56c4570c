"""A pipeline's contract, compiled: what a record must be like to enter the log.

The same contract checks at the HTTP edge and in the worker, so both refuse with the same codes. Valid records
take the fast way (a generated struct that checks types, ranges and categories in C); whatever that refuses is
explained by `domain.violations`, which looks at each field.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from everloop_schemas.events import Violation
from everloop_schemas.partition import key_bytes
from everloop_schemas.pipeline import FieldSpec, Pipeline
from msgspec import UNSET, Meta, UnsetType

from everloop_ingest.domain.violations import Expected, explain, text_of

__all__ = ["CODES", "Checked", "Contract", "Kind", "Refused"]

Kind = Literal["observation", "label"]
KINDS: Final[Mapping[str, Kind]] = {"io.everloop.observation": "observation", "io.everloop.label": "label"}
LONGEST_ID: Final = 200
"""Characters in a record's id."""

CODES: Final = frozenset(
    {
        "allowed-values",
        "control-character",
        "event-in-future",
        "id",
        "known-at-in-future",
        "known-at-not-allowed",
        "max",
        "min",
        "required",
        "time",
        "type",
        "unknown-field",
        "unknown-type",
    }
)
"""Every rule that a contract knows; the decoder adds its own codes (`malformed-json`, `duplicate-key` …)."""

_Time = Annotated[datetime, Meta(tz=True)]


class Checked(msgspec.Struct, frozen=True, gc=False):
    """A record that meets the contract, normalised: times in UTC, numbers as floats."""

    kind: Kind
    id: str
    event_time: datetime
    known_at: datetime
    fields: msgspec.Struct
    """Every declared field, null where it may be; encodes to the JSON object of the log."""
    key: bytes
    """The Kafka key, which decides the partition."""


class Refused(msgspec.Struct, frozen=True):
    """A record that breaks the contract, and every way in which it does."""

    violations: Sequence[Violation]
    kind: Kind | None
    id: str | None


class Contract:
    """The compiled contract of one pipeline version."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.definition = pipeline
        self.pipeline = pipeline.pipeline
        self.partitions = pipeline.partitions
        self.dedupe_records = pipeline.observation.dedupe_records
        self.notify_every = pipeline.observation.notify_every
        self._replay_sources = frozenset(pipeline.observation.replay_sources)
        self._skew = pipeline.observation.max_future_skew
        observed, labelled = pipeline.observation, pipeline.label
        keys = {name: observed.fields[name] for name in pipeline.partition_by}
        self._kinds: dict[Kind, _KindContract] = {
            "observation": _KindContract(observed.event_time, observed.fields, pipeline.partition_by),
            "label": _KindContract("event_time", {**keys, **labelled.fields}, pipeline.partition_by),
        }
        self._label_names = frozenset(labelled.fields)
        self._observed_time = observed.event_time

    def kind_of(self, type_name: str | None, data: Mapping[str, Any]) -> Kind | Refused:
        """What a record is: as its CloudEvents type says, else by the fields it has."""
        if type_name is not None:
            known = KINDS.get(type_name)
            return known or Refused([_unknown_type(type_name)], None, _id_of(data))
        is_label = self._label_names <= data.keys() and self._observed_time not in data
        return "label" if is_label else "observation"

    def check(
        self,
        kind: Kind,
        data: Mapping[str, Any],
        *,
        source: str,
        now: datetime,
        may_replay: bool = True,
        text_is_plain: bool = True,
    ) -> Checked | Refused:
        r"""Check a decoded record of `source` that is seen at `now` (UTC).

        `may_replay` says whether its sender may give `known_at` at all; `text_is_plain` that no text of it
        holds a NUL (JSON `\u0000`), which no database takes.
        """
        rules = self._kinds[kind]
        parsed = rules.parse(data) if text_is_plain else None
        if parsed is None:
            violations, mended = explain(data, rules.expected)
            parsed = None if violations else rules.parse(mended)
            if parsed is None:
                return Refused(violations or [_inexplicable(data)], kind, _id_of(data))
        head, fields = parsed
        known_at = now if head.known_at is UNSET else head.known_at
        replays = may_replay and source in self._replay_sources
        wrong_times = self._violated_times(head, known_at, now, replays=replays)
        if wrong_times:
            return Refused(wrong_times, kind, head.id)
        return Checked(kind, head.id, head.event_time, known_at, fields, rules.key(fields))

    def _violated_times(
        self, head: Any, known_at: datetime, now: datetime, *, replays: bool
    ) -> list[Violation]:
        found: list[Violation] = []
        if head.known_at is not UNSET and not replays:
            mend = "leave known_at out; only the pipeline's replay_sources, with the role replay, may give it"
            found.append(_violation("known_at", head.known_at, "known-at-not-allowed", mend))
        if known_at > now + self._skew:
            found.append(_violation("known_at", known_at, "known-at-in-future", "correct the clock"))
        if head.event_time > known_at + self._skew:
            mend = f"an event time is at most {self._skew} after the record is known: correct the clock"
            found.append(_violation("event_time", head.event_time, "event-in-future", mend))
        return found


class _KindContract:
    """The contract of observations or of labels."""

    def __init__(self, event_time: str, fields: Mapping[str, FieldSpec], key_names: Sequence[str]) -> None:
        self.expected = Expected(event_time, dict(fields), LONGEST_ID)
        names = {name: f"f{position}" for position, name in enumerate(fields)}
        self._allowed = frozenset({"id", "known_at", event_time, *fields})
        self._fields = _fields_struct(fields, names)
        self._head = _head_struct(event_time)
        self._keys = [names[name] for name in key_names]
        self._times = [names[name] for name, spec in fields.items() if spec.type == "timestamp"]

    def parse(self, data: Mapping[str, Any]) -> tuple[Any, msgspec.Struct] | None:
        """The record's head and fields, or None where something is wrong (or merely needs a second look)."""
        if not data.keys() <= self._allowed:
            return None
        try:
            head = msgspec.convert(data, self._head)
            fields: msgspec.Struct = msgspec.convert(data, self._fields)
            _to_utc(head, ("event_time", "known_at"))
            _to_utc(fields, self._times)
        except (msgspec.ValidationError, OverflowError):
            return None
        return head, fields

    def key(self, fields: msgspec.Struct) -> bytes:
        """The Kafka key of a record with these fields."""
        return key_bytes([getattr(fields, name) for name in self._keys])


def _head_struct(event_time: str) -> Any:
    """Id and times of a record, whose event time has a name of its own."""
    identifier = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID, pattern=r"^[^\x00-\x1f\x7f]+$")]
    return msgspec.defstruct(
        "Head",
        [("id", identifier), ("event_time", _Time), ("known_at", _Time | UnsetType, UNSET)],
        rename={"event_time": event_time},
    )


def _fields_struct(fields: Mapping[str, FieldSpec], names: Mapping[str, str]) -> Any:
    """The declared fields; attribute names are ours, since a field may be named like a method."""
    attributes: list[Any] = [
        (names[name], _type_of(spec) | None, None) if spec.nullable else (names[name], _type_of(spec))
        for name, spec in fields.items()
    ]
    return msgspec.defstruct(
        "Fields", attributes, kw_only=True, rename={ours: theirs for theirs, ours in names.items()}
    )


def _type_of(spec: FieldSpec) -> Any:
    if spec.type == "category" and spec.values:
        return Literal[tuple(spec.values)]
    if spec.type == "number":
        return _ranged(float, spec.min, spec.max)
    if spec.type == "integer":
        low = None if spec.min is None else max(math.ceil(spec.min), -(2**63))
        high = None if spec.max is None else min(math.floor(spec.max), 2**63 - 1)
        return _ranged(int, low, high)
    types: dict[str, Any] = {"boolean": bool, "timestamp": _Time}
    return types.get(spec.type, str)


def _ranged(kind: Any, low: float | None, high: float | None) -> Any:
    if low is None and high is None:
        return kind
    return Annotated[kind, Meta(ge=low, le=high)]


def _to_utc(struct: Any, names: Sequence[str]) -> None:
    """Move times to UTC, in place: the struct is not shared yet."""
    for name in names:
        value = getattr(struct, name)
        if value.__class__ is datetime and value.tzinfo is not UTC:
            setattr(struct, name, value.astimezone(UTC))


def _id_of(data: Mapping[str, Any]) -> str | None:
    value = data.get("id")
    return value[:LONGEST_ID] if isinstance(value, str) else None


def _violation(field: str, value: object, rule: str, mend: str) -> Violation:
    return Violation(field=field, value=text_of(value), rule=rule, mend=mend)


def _unknown_type(type_name: str) -> Violation:
    mend = f"set the CloudEvents type to {' or '.join(KINDS)}"
    return _violation("type", type_name, "unknown-type", mend)


def _inexplicable(data: Mapping[str, Any]) -> Violation:
    return Violation(
        field=None, value=text_of(data), rule="type", mend="send what the pipeline file declares"
    )
