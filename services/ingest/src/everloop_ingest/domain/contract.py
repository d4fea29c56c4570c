"""A pipeline's contract, compiled: what a record must be like to enter the log.

The same contract checks at the HTTP edge and in the worker, so both refuse with the same codes. Valid records
take the fast way (`domain.shapes`, in C); whatever that refuses is explained by `domain.violations`, which
looks at each field.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from everloop_features import RecordRules, compile_rules, microseconds
from everloop_schemas.durations import format_duration
from everloop_schemas.events import Violation
from everloop_schemas.pipeline import Pipeline
from msgspec import UNSET

from everloop_ingest.domain.glance import glances
from everloop_ingest.domain.shapes import LONGEST_ID, Parsed, Shape
from everloop_ingest.domain.violations import Found, found, text_of

__all__ = ["CODES", "KINDS", "RULE_PREFIX", "Checked", "Contract", "Kind", "Refused", "UnusableContractError"]

Kind = Literal["observation", "label", "retraction"]
KINDS: Final[Mapping[str, Kind]] = {
    "io.everloop.observation": "observation",
    "io.everloop.label": "label",
    "io.everloop.retraction": "retraction",
}
RETRACTION: Final = "retraction"
"""The field that makes plain JSON a retraction, unless the pipeline has a field of this name."""
REASON: Final = "reason"
"""The field that says why an observation is retracted, unless it is one of the partition key's."""
RULE_PREFIX: Final = "rule:"
"""Before the name of a rule over several fields, in the code of a violation."""

CODES: Final = frozenset(
    {
        "allowed-values",
        "control-character",
        "event-in-future",
        "id",
        "known-at-in-future",
        "known-at-not-allowed",
        "late",
        "max",
        "max-length",
        "min",
        "pattern",
        "required",
        "time",
        "type",
        "unknown-field",
        "unknown-type",
    }
)
"""Every code that a contract knows beside `rule:NAME`; the decoder adds its own (`malformed-json` …), the
worker `conflict`."""

LONGEST_KEY: Final = 4096
"""Bytes of a record's Kafka key: state, caches and every vector hold it."""
_SEVERITY: Final = ("refuse", "quarantine", "warn")


class Checked(msgspec.Struct, frozen=True, gc=False):
    """A record that may enter the log, normalised: times in UTC, numbers as floats."""

    kind: Kind
    id: str
    event_time: datetime
    known_at: datetime
    fields: msgspec.Struct
    """Every declared field, null where it may be; encodes to the JSON object of the log."""
    key: bytes
    """The Kafka key, which decides the partition."""
    warnings: Sequence[Violation] = ()
    """Rules that it breaks and that only warn."""
    reason: str | None = None
    """Why an observation is retracted."""


class Refused(msgspec.Struct, frozen=True):
    """A record that may not enter the log, and every rule that it breaks, the gravest first."""

    violations: Sequence[Violation]
    kind: Kind | None
    id: str | None
    action: Literal["refuse", "quarantine"] = "refuse"
    """What the HTTP edge does: refuse the row, or publish it so that the worker quarantines it. The worker
    quarantines either way."""
    key: bytes = b""
    """The Kafka key under which a row to be quarantined is published."""


class UnusableContractError(ValueError):
    """A pipeline whose rules do not compile: `everloop apply` would have refused it."""


class Contract:
    """The compiled contract of one pipeline version. Raises UnusableContractError."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.definition = pipeline
        self.pipeline = pipeline.pipeline
        self.partitions = pipeline.partitions
        self.dedupe_records = pipeline.observation.dedupe_records
        self.notify_every = pipeline.observation.notify_every
        self.glances = glances(pipeline)
        observed, labelled = pipeline.observation, pipeline.label
        self._replay_sources = frozenset(observed.replay_sources)
        self._skew = observed.max_future_skew
        self._lateness = observed.allowed_lateness
        self._when_late: Literal["warn", "quarantine"] = (
            "warn" if observed.when_late == "apply" else "quarantine"
        )
        self._label_names = frozenset(labelled.fields)
        self._observed_time = observed.event_time
        self._shapes, self._marker = _shapes(pipeline)
        self._has_remark = REASON not in pipeline.partition_by
        rules = compile_rules(pipeline)
        if isinstance(rules, list):
            raise UnusableContractError("; ".join(map(str, rules)))
        self._rules: Mapping[Any, RecordRules] = rules

    def kind_of(self, type_name: str | None, data: Mapping[str, Any]) -> Kind | Refused:
        """What a record is: as its CloudEvents type says, else by the fields it has."""
        if type_name is not None:
            known = KINDS.get(type_name)
            return known or Refused([_unknown_type(type_name).violation], None, _id_of(data))
        if self._marker is not None and self._marker in data:
            return "retraction"
        is_label = self._label_names <= data.keys() and self._observed_time not in data
        return "label" if is_label else "observation"

    def may_replay(self, source: str) -> bool:
        """Whether records of this source may say when they were known, if their sender may."""
        return source in self._replay_sources

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
        shape = self._shapes[kind]
        parsed, wrong = (shape.parse(data) if text_is_plain else None), _NOTHING
        if parsed is None:
            parsed, wrong = shape.look_closer(data)
            if parsed is None:
                return _refused(wrong, kind, _id_of(data), shape.key_of_spoilt(data))
        head, fields = parsed
        known_at = now if head.known_at is UNSET else head.known_at
        event_time = known_at if head.event_time is UNSET else head.event_time
        replays = may_replay and source in self._replay_sources
        broken = self._broken(kind, parsed, event_time, known_at, now=now, replays=replays)
        key = shape.key(fields)
        if len(key) > LONGEST_KEY:
            wrong = [*wrong, self._long_key(key)]
        if not broken and not wrong:
            reason = head.remark if kind == "retraction" and self._has_remark else None
            return Checked(kind, head.id, event_time, known_at, fields, key, reason=reason)
        wrong = [*wrong, *broken]
        if any(each.action != "warn" for each in wrong):
            return _refused(wrong, kind, head.id, key)
        return Checked(kind, head.id, event_time, known_at, fields, key, [each.violation for each in wrong])

    def _broken(
        self,
        kind: Kind,
        parsed: Parsed,
        event_time: datetime,
        known_at: datetime,
        *,
        now: datetime,
        replays: bool,
    ) -> Sequence[Found]:
        """Rules about times, and those over several fields."""
        head, fields = parsed
        wrong: list[Found] = []
        if head.known_at is not UNSET:
            wrong += self._given_known_at(known_at, now, replays=replays)
        if event_time - known_at > self._skew:
            skew = format_duration(self._skew)
            mend = f"an event time is at most {skew} after the record is known: correct the clock"
            name = self._observed_time if kind == "observation" else "event_time"
            wrong.append(found(name, text_of(event_time), "event-in-future", mend))
        if self._lateness is not None and kind == "observation" and known_at - event_time > self._lateness:
            mend = f"send an observation within {format_duration(self._lateness)} of its event time"
            wrong.append(found(self._observed_time, text_of(event_time), "late", mend, self._when_late))
        if kind in self._rules:
            wrong += _crossed(self._rules[kind], self._shapes[kind], fields, event_time)
        return wrong

    def _long_key(self, key: bytes) -> Found:
        mend = f"send at most {LONGEST_KEY} bytes in {', '.join(self.definition.partition_by)} together"
        shown = key[:50].decode("utf-8", "replace")
        return found(self.definition.partition_by[0], shown, "max-length", mend)

    def _given_known_at(self, known_at: datetime, now: datetime, *, replays: bool) -> Iterator[Found]:
        if not replays:
            mend = "leave known_at out; only the pipeline's replay_sources, with the role replay, may give it"
            yield found("known_at", text_of(known_at), "known-at-not-allowed", mend)
        if known_at - now > self._skew:
            yield found("known_at", text_of(known_at), "known-at-in-future", "correct the clock")


_NOTHING: Final[Sequence[Found]] = ()


def _shapes(pipeline: Pipeline) -> tuple[Mapping[Kind, Shape], str | None]:
    """The shape of each kind, and the field that makes plain JSON a retraction."""
    observed, labelled, key = pipeline.observation, pipeline.label, pipeline.partition_by
    keys = {name: observed.fields[name] for name in key}
    taken = {observed.event_time, *observed.fields, *labelled.fields}
    marker = None if RETRACTION in taken else RETRACTION
    remark = None if REASON in key else REASON
    shapes: Mapping[Kind, Shape] = {
        "observation": Shape(observed.event_time, observed.fields, key),
        "label": Shape("event_time", {**keys, **labelled.fields}, key),
        "retraction": Shape("event_time", keys, key, time_required=False, marker=marker, remark=remark),
    }
    return shapes, marker


def _crossed(rules: RecordRules, shape: Shape, fields: msgspec.Struct, event_time: datetime) -> list[Found]:
    """The rules over several fields that a record breaks."""
    values = shape.named(fields)
    wrong = []
    for position in rules.broken(values, microseconds(event_time)):
        rule = rules.rules[position]
        shown = {
            name: "(personal data)" if shape.is_personal(name) else values.get(name, event_time)
            for name in rules.uses[position]
        }
        text = ", ".join(f"{name}={text_of(value)}" for name, value in shown.items())[:200]
        mend = rule.description or f"send a record for which {rule.expr} holds"
        wrong.append(found(None, text, RULE_PREFIX + rule.name, mend, rule.action))
    return wrong


def _refused(wrong: Sequence[Found], kind: Kind, record_id: str | None, key: bytes) -> Refused:
    """The refusal: the gravest rules first, otherwise in the order of the file."""
    ranked = sorted(wrong, key=lambda each: _SEVERITY.index(each.action))
    action: Literal["refuse", "quarantine"] = "refuse" if ranked[0].action == "refuse" else "quarantine"
    return Refused([each.violation for each in ranked], kind, record_id, action, key)


def _id_of(data: Mapping[str, Any]) -> str | None:
    value = data.get("id")
    return value[:LONGEST_ID] if isinstance(value, str) else None


def _unknown_type(type_name: str) -> Found:
    return found(
        "type", text_of(type_name), "unknown-type", f"set the CloudEvents type to {' or '.join(KINDS)}"
    )
