"""The quickest look at a row: enough to see that nothing is wrong with it.

One typed decoding in C checks syntax, UTF-8, names, types, ranges and categories. What it does not see is
ruled out by counting: a row without escapes holds two quotes a text, so a key that stands there twice shows.
Whoever is not let in here is not refused, but looked at by `Contract.check`, which knows every rule and says
what is wrong; a pipeline with rules that are not known here has no glance at all.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from everloop_schemas.partition import key_bytes
from everloop_schemas.pipeline import FieldSpec, Pipeline
from msgspec import UNSET, Meta, UnsetType

__all__ = ["Glance", "Seen", "glances"]

_FIELD_KEYS: Final = frozenset(
    {"type", "unit", "nullable", "min", "max", "values", "actions", "description", "pii", "source", "owner"}
)
_OBSERVATION_KEYS: Final = frozenset(
    {"event_time", "fields", "replay_sources", "max_future_skew", "dedupe_records", "notify_every"}
)
_LABEL_KEYS: Final = frozenset({"type", "fields", "value", "expected_after"})
_TEXT: Final = frozenset({"category", "string", "timestamp"})
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_LONGEST_ID: Final = 200
_LONGEST_ROW: Final = 1 << 20
_REMEMBERED_KEYS: Final = 65_536
_Time = Annotated[datetime, Meta(tz=True)]


class Seen(NamedTuple):
    """A row that meets the contract."""

    id: str
    key: bytes


class Glance:
    """The quick look at rows of one kind."""

    def __init__(
        self, event_time: str, fields: Mapping[str, FieldSpec], key_names: Sequence[str], skew: timedelta
    ) -> None:
        names = {name: f"f{position}" for position, name in enumerate(fields)}
        self._decode = msgspec.json.Decoder(_row_struct(event_time, fields, names)).decode
        self._keys = [names[name] for name in key_names]
        self._times = ["event_time", *[names[n] for n, spec in fields.items() if spec.type == "timestamp"]]
        self._skew = skew
        texts = [spec.type in _TEXT for spec in fields.values()]
        self._quotes = 2 * (len(fields) + sum(texts)) + 8  # of a row with all fields: id and event time too
        self._nullable = [
            (names[name], 4 if spec.type in _TEXT else 2, 2 if spec.type in _TEXT else 0)
            for name, spec in fields.items()
            if spec.nullable
        ]
        self._known: dict[Any, bytes] = {}

    def at(self, row: bytes, now: datetime, *, replays: bool) -> Seen | None:
        """What the row is, if it can be seen to meet the contract at `now` (UTC); else None.

        `replays`: whether its sender may say when it was known.
        """
        if b"\\" in row or b"\x7f" in row or len(row) > _LONGEST_ROW:
            return None
        try:
            found = self._decode(row)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        if not self._is_in_time(found, now, replays=replays) or row.count(b'"') != self._quotes_of(found):
            return None
        return Seen(found.id, self._key(found))

    def _is_in_time(self, found: Any, now: datetime, *, replays: bool) -> bool:
        known_at = found.known_at
        if known_at is UNSET:
            known_at = now
        elif not replays or not _is_ordinary(known_at) or known_at > now + self._skew:
            return False
        for name in self._times:
            value = getattr(found, name)
            if value.__class__ is datetime and not _is_ordinary(value):
                return False
        return bool(found.event_time <= known_at + self._skew)

    def _quotes_of(self, found: Any) -> int:
        """The quotes of a row with these fields and no key twice."""
        quotes = self._quotes
        for name, if_absent, if_null in self._nullable:
            value = getattr(found, name)
            if value is UNSET:
                quotes -= if_absent
            elif value is None:
                quotes -= if_null
        return quotes if found.known_at is UNSET else quotes + 4

    def _key(self, found: Any) -> bytes:
        values = tuple([getattr(found, name) for name in self._keys])
        key = self._known.get(values)
        if key is None:
            key = key_bytes([None if value is UNSET else value for value in values])
            if len(self._known) >= _REMEMBERED_KEYS:
                self._known.clear()
            if all(value.__class__ is str for value in values):  # 1, 1.0 and True are one key of a dict
                self._known[values] = key
        return key


def _is_ordinary(moment: datetime) -> bool:
    """Not at the edge of the calendar, where another time zone has no name for it."""
    return 1 < moment.year < 9999  # noqa: PLR2004  (datetime's own limits)


def glances(pipeline: Pipeline) -> Mapping[str, Glance]:
    """The glance at each kind of row, where all of the pipeline's rules are known here."""
    observed, labelled = pipeline.observation, pipeline.label
    keys = {name: observed.fields[name] for name in pipeline.partition_by}
    every = {
        "observation": (observed, _OBSERVATION_KEYS, observed.event_time, observed.fields),
        "label": (labelled, _LABEL_KEYS, "event_time", {**keys, **labelled.fields}),
    }
    return {
        kind: Glance(event_time, fields, pipeline.partition_by, observed.max_future_skew)
        for kind, (section, known, event_time, fields) in every.items()
        if _holds_only(section, known)
        and _holds_only(observed, _OBSERVATION_KEYS)
        and all(_holds_only(spec, _FIELD_KEYS) for spec in fields.values())
    }


def _holds_only(section: Any, known: frozenset[str]) -> bool:
    """Whether every key that is not known here has its default: no rule."""
    defaults = type(section).model_fields
    return all(name in known or value == defaults[name].default for name, value in section)


def _row_struct(event_time: str, fields: Mapping[str, FieldSpec], names: Mapping[str, str]) -> Any:
    """A whole row; attribute names are ours, since a field may be named like a method."""
    attributes: list[Any] = [
        ("id", Annotated[str, Meta(min_length=1, max_length=_LONGEST_ID)]),
        ("event_time", _Time),
        ("known_at", _Time | UnsetType, UNSET),
    ]
    for name, spec in fields.items():
        kind = _type_of(spec)
        attributes.append(
            (names[name], kind | None | UnsetType, UNSET) if spec.nullable else (names[name], kind)
        )
    rename = {"event_time": event_time} | {ours: theirs for theirs, ours in names.items()}
    return msgspec.defstruct(
        "Row", attributes, kw_only=True, gc=False, forbid_unknown_fields=True, rename=rename
    )


def _type_of(spec: FieldSpec) -> Any:
    """Numbers are kept to what 64 bits hold: beyond, the closer look decides."""
    if spec.type == "category" and spec.values:
        return Literal[tuple(spec.values)]
    if spec.type == "number":
        low = _LOWEST if spec.min is None else max(spec.min, float(_LOWEST))
        high = float(2**62) if spec.max is None else min(spec.max, float(2**62))
        return Annotated[float, Meta(ge=low, le=high)]
    if spec.type == "integer":
        low = _LOWEST if spec.min is None else max(math.ceil(spec.min), _LOWEST)
        high = _HIGHEST if spec.max is None else min(math.floor(spec.max), _HIGHEST)
        return Annotated[int, Meta(ge=low, le=high)]
    types: dict[str, Any] = {"boolean": bool, "timestamp": _Time}
    return types.get(spec.type, str)
