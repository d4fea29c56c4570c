"""The shape of one kind of record, compiled: structs that check types, ranges and categories in C."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from everloop_schemas.partition import key_bytes
from everloop_schemas.patterns import compile_pattern
from everloop_schemas.pipeline import FieldSpec
from msgspec import UNSET, Meta, UnsetType

from everloop_ingest.domain.violations import LONGEST_REMARK, Expected, Found, explain, found, text_of

__all__ = ["LONGEST_ID", "Parsed", "Shape"]

LONGEST_ID: Final = 200
"""Characters in a record's id."""
Parsed = tuple[Any, msgspec.Struct]
"""A record's head (id, event_time, known_at) and its fields."""

_HEADS: Final = 3
_HEAD_TIMES: Final = ("event_time", "known_at")
_NO_CONTROLS: Final = r"^[^\x00-\x1f\x7f]+$"
_Time = Annotated[datetime, Meta(tz=True)]


class Shape:
    """What records of one kind look like.

    `time_required` says whether the event time must be there (UNSET where it may be left out); `marker` names
    a field that may only be true and is not kept, `remark` one for a text that stands in the head.
    """

    def __init__(
        self,
        event_time: str,
        fields: Mapping[str, FieldSpec],
        key_names: Sequence[str],
        *,
        time_required: bool = True,
        marker: str | None = None,
        remark: str | None = None,
    ) -> None:
        ordered = dict(sorted(fields.items()))  # equal content is equal bytes, however the file orders it
        names = {name: f"f{position}" for position, name in enumerate(ordered)}
        self._expected = Expected(event_time, dict(fields), LONGEST_ID, time_required, marker, remark)
        self._marker = marker
        form = _Form(event_time, names, time_required, marker, remark)
        self._strict = form.struct(ordered)
        self._typed = form.struct({name: _type_alone(spec) for name, spec in ordered.items()})
        self._fields = msgspec.defstruct(
            "Fields", list(names.values()), rename={ours: theirs for theirs, ours in names.items()}
        )
        self._end = _HEADS + len(names)
        self._patterns = _patterns(ordered, names)
        self._keys = [names[name] for name in key_names]
        self._key_names = list(key_names)
        self._names = list(ordered)
        self._times = [names[name] for name, spec in ordered.items() if spec.type == "timestamp"]

    def parse(self, data: Mapping[str, Any]) -> Parsed | None:
        """The record's head and fields, or None where something is wrong (or merely needs a second look)."""
        parsed = self._convert(data, self._strict)
        if parsed is None or (self._patterns and not self._matches(parsed[1])):
            return None
        return parsed if self._marker is None or data.get(self._marker, True) is True else None

    def look_closer(self, data: Mapping[str, Any]) -> tuple[Parsed | None, list[Found]]:
        """What `parse` has not read: everything that is wrong, and the record if its types are right."""
        wrong, mended = explain(data, self._expected)
        if any(each.spoils_types for each in wrong):
            return None, wrong
        parsed = self._convert(mended, self._typed if wrong else self._strict)
        if parsed is None:
            mend = "send what the pipeline file declares"
            return None, [*wrong, found(None, text_of(data), "type", mend)]
        return parsed, wrong

    def key(self, fields: msgspec.Struct) -> bytes:
        """The Kafka key of a record with these fields."""
        return key_bytes([getattr(fields, name) for name in self._keys])

    def key_of_spoilt(self, data: Mapping[str, Any]) -> bytes:
        """The Kafka key of a record of wrong types: by its key's fields as they stand, else by its id."""
        values = [data.get(name) for name in self._key_names]
        if all(value is None or isinstance(value, str | int | float) for value in values):
            return key_bytes(values)
        return text_of(data.get("id")).encode("utf-8", "replace")

    def named(self, fields: msgspec.Struct) -> dict[str, Any]:
        """The fields by their names in the pipeline file."""
        return dict(zip(self._names, msgspec.structs.astuple(fields), strict=True))

    def is_personal(self, name: str) -> bool:
        """Whether a field's values are about a person."""
        spec = self._expected.fields.get(name)
        return spec is not None and spec.pii is True

    def _convert(self, data: Mapping[str, Any], shape: Any) -> Parsed | None:
        try:
            head = msgspec.convert(data, shape)
            fields: msgspec.Struct = self._fields(*msgspec.structs.astuple(head)[_HEADS : self._end])
            _to_utc(head, _HEAD_TIMES)
            if self._times:
                _to_utc(fields, self._times)
        except (msgspec.ValidationError, OverflowError):
            return None
        return head, fields

    def _matches(self, fields: msgspec.Struct) -> bool:
        for name, matches in self._patterns:
            value = getattr(fields, name)
            if value is not None and not matches(value):
                return False
        return True


@dataclass(frozen=True, slots=True)
class _Form:
    """How records of one kind name things. Attribute names are ours: a field may be named like a method."""

    event_time: str
    names: Mapping[str, str]
    time_required: bool
    marker: str | None
    remark: str | None

    def struct(self, fields: Mapping[str, FieldSpec]) -> Any:
        """The struct that a record is converted to: id, event_time, known_at, then the fields."""
        identifier = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID, pattern=_NO_CONTROLS)]
        later = _Time | UnsetType
        when: Any = ("event_time", _Time) if self.time_required else ("event_time", later, UNSET)
        attributes: list[Any] = [("id", identifier), when, ("known_at", later, UNSET)]
        attributes += [_attribute(self.names[name], spec) for name, spec in fields.items()]
        renamed = {"event_time": self.event_time, **{ours: theirs for theirs, ours in self.names.items()}}
        if self.marker is not None:
            attributes.append(("marker", bool | UnsetType, UNSET))
            renamed["marker"] = self.marker
        remark = Annotated[str, Meta(max_length=LONGEST_REMARK)] | None
        attributes += [("remark", remark, None)] if self.remark is not None else []
        renamed |= {"remark": self.remark} if self.remark is not None else {}
        return msgspec.defstruct(
            "Record", attributes, kw_only=True, forbid_unknown_fields=True, rename=renamed
        )


def _attribute(name: str, spec: FieldSpec) -> Any:
    return (name, _type_of(spec) | None, None) if spec.nullable else (name, _type_of(spec))


def _type_alone(spec: FieldSpec) -> FieldSpec:
    """The same field without rules about its values."""
    return FieldSpec(type=spec.type, nullable=spec.nullable)


def _type_of(spec: FieldSpec) -> Any:
    if spec.type == "category" and spec.values:
        return Literal[tuple(spec.values)]
    if spec.type in {"category", "string"}:
        return Annotated[str, Meta(max_length=spec.max_length)] if spec.max_length else str
    if spec.type == "number":
        return _ranged(float, spec.min, spec.max)
    if spec.type == "integer":
        low = None if spec.min is None else max(math.ceil(spec.min), -(2**63))
        high = None if spec.max is None else min(math.floor(spec.max), 2**63 - 1)
        return _ranged(int, low, high)
    return bool if spec.type == "boolean" else _Time


def _ranged(kind: Any, low: float | None, high: float | None) -> Any:
    if low is None and high is None:
        return kind
    return Annotated[kind, Meta(ge=low, le=high)]


def _patterns(
    fields: Mapping[str, FieldSpec], names: Mapping[str, str]
) -> list[tuple[str, Callable[[str], bool]]]:
    """What C does not check: RE2's patterns, and lengths of the texts among listed categories."""
    checks: list[tuple[str, Callable[[str], bool]]] = [
        (names[name], compile_pattern(spec.pattern)) for name, spec in fields.items() if spec.pattern
    ]
    for name, spec in fields.items():
        if spec.values and spec.max_length and any(len(value) > spec.max_length for value in spec.values):
            checks.append(
                (names[name], frozenset(v for v in spec.values if len(v) <= spec.max_length).__contains__)
            )
    return checks


def _to_utc(struct: Any, names: Sequence[str]) -> None:
    """Move times to UTC, in place: the struct is not shared yet."""
    for name in names:
        value = getattr(struct, name)
        if value.__class__ is datetime and value.tzinfo is not UTC:
            setattr(struct, name, value.astimezone(UTC))
