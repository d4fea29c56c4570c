"""The slow way: look at each field of a refused record and say everything that is wrong with it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from everloop_schemas.events import Violation
from everloop_schemas.patterns import compile_pattern
from everloop_schemas.pipeline import Action, FieldSpec

__all__ = ["LONGEST_REMARK", "Expected", "Found", "explain", "found", "text_of"]

_LONGEST_VALUE: Final = 200
_MOST_UNKNOWN: Final = 100
"""Unknown fields that are named: a record of a megabyte can have a hundred thousand."""
LONGEST_REMARK: Final = 500
"""Characters of a retraction's reason."""
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_ABSENT: Final = object()
_PERSONAL: Final = "(personal data)"
_OF_VALUES: Final = frozenset({"min", "max", "allowed-values", "pattern", "max-length"})
"""Rules that a record can break and still be of the declared types."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a record of one kind holds; `marker` names a field that may only be true, `remark` a text."""

    event_time: str
    fields: Mapping[str, FieldSpec]
    longest_id: int
    time_required: bool = True
    marker: str | None = None
    remark: str | None = None


class Found(NamedTuple):
    """A violation, and what the pipeline says becomes of its record."""

    violation: Violation
    action: Action = "refuse"

    @property
    def spoils_types(self) -> bool:
        """Whether the record cannot be read as what the pipeline declares."""
        return self.violation.rule not in _OF_VALUES


def found(field: str | None, value: str, rule: str, mend: str, action: Action = "refuse") -> Found:
    """A violation; `value` is text for people."""
    return Found(Violation(field=field, value=value, rule=rule, mend=mend), action)


def explain(data: Mapping[str, Any], expected: Expected) -> tuple[list[Found], dict[str, Any]]:
    """Every violation, in the order id, times, declared fields, unknown fields; and the record, mended.

    Mended means: whole numbers written as floats (`22.0`) are whole where the pipeline declares an integer.
    """
    wrong = [*_of_id(data, expected.longest_id)]
    wrong += _of_time(data, expected.event_time, required=expected.time_required)
    wrong += _of_time(data, "known_at", required=False)
    for name, spec in expected.fields.items():
        wrong += _of_field(name, spec, data.get(name, _ABSENT))
    wrong += islice(_of_others(data, expected), _MOST_UNKNOWN)
    return wrong, {name: _whole(value, expected.fields.get(name)) for name, value in data.items()}


def _of_others(data: Mapping[str, Any], expected: Expected) -> Iterator[Found]:
    known = {"id", "known_at", expected.event_time, *expected.fields, *filter(None, [expected.remark])}
    for name, value in data.items():
        if name == expected.marker:
            if value is not True:
                yield _found(name, value, "type", "send true")
        elif name == expected.remark:
            if value is not None and not _is_remark(value):
                yield _found(name, value, "type", f"send text of at most {LONGEST_REMARK} characters")
        elif name not in known:
            yield _found(
                name, value, "unknown-field", f"send only declared fields: {', '.join(sorted(known))}"
            )


def _is_remark(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_REMARK and "\x00" not in value


def text_of(value: object) -> str:
    """A value as text for people, shortened."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return (
        value[:_LONGEST_VALUE] if isinstance(value, str) else json.dumps(value, default=str)[:_LONGEST_VALUE]
    )


def _found(field: str, value: object, rule: str, mend: str, spec: FieldSpec | None = None) -> Found:
    text = "" if value is _ABSENT else text_of(value)
    if spec is None:
        return found(field[:_LONGEST_VALUE], text, rule, mend)
    actions: Mapping[Any, Action] = spec.actions or {}
    return found(field, _PERSONAL if spec.pii and text else text, rule, mend, actions.get(rule, "refuse"))


def _of_id(data: Mapping[str, Any], longest: int) -> Iterator[Found]:
    value = data.get("id", _ABSENT)
    mend = f"send text of 1 to {longest} characters, the same for an observation and its label"
    if value is _ABSENT:
        yield _found("id", value, "required", mend)
    elif not isinstance(value, str) or not 0 < len(value) <= longest:
        yield _found("id", value, "id", mend)
    elif any(character < " " or character == "\x7f" for character in value):
        yield _found("id", value, "control-character", "send an id without control characters")


def _of_time(data: Mapping[str, Any], name: str, *, required: bool) -> Iterator[Found]:
    value = data.get(name, _ABSENT)
    if value is _ABSENT:
        if required:
            yield _found(name, value, "required", "add when it happened, such as 2013-01-01T05:15:00Z")
    elif _time(value) is None:
        yield _found(name, value, "time", "write RFC 3339 with a time zone, such as 2013-01-01T05:15:00Z")


def _time(value: object) -> datetime | None:
    """The time in UTC, or None for what is no RFC 3339 time with a zone."""
    try:
        return msgspec.convert(value, _Time).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def _of_field(name: str, spec: FieldSpec, value: Any) -> Iterator[Found]:
    if value is _ABSENT or value is None:
        if not spec.nullable:
            yield _found(name, value, "required", f"add {name}, or declare it nullable", spec)
    elif not _has_type(spec, value):
        yield _found(name, value, "type", f"send {_WORDS[spec.type]}", spec)
    elif isinstance(value, str):
        yield from _of_text(name, spec, value)
    elif not isinstance(value, bool):
        yield from _of_number(name, spec, value)


_WORDS: Final[Mapping[str, str]] = {
    "category": "text",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "timestamp": "RFC 3339 text with a time zone, such as 2013-01-01T05:15:00Z",
}


def _has_type(spec: FieldSpec, value: Any) -> bool:
    if spec.type == "boolean":
        return isinstance(value, bool)
    if spec.type in {"number", "integer"}:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and (spec.type == "number" or isinstance(_whole(value, spec), int))
    return isinstance(value, str) and (spec.type != "timestamp" or _time(value) is not None)


def _whole(value: Any, spec: FieldSpec | None) -> Any:
    """`22.0` as 22 where an integer is declared: many clients write every number as a float."""
    if spec is not None and spec.type == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _of_text(name: str, spec: FieldSpec, value: str) -> Iterator[Found]:
    if "\x00" in value:
        yield _found(name, value, "control-character", "send text without NUL characters")
    if spec.values is not None and value not in spec.values:
        yield _found(name, value, "allowed-values", f"send one of {_some(spec.values)}", spec)
    if spec.max_length is not None and len(value) > spec.max_length:
        yield _found(name, value, "max-length", f"send at most {spec.max_length} characters", spec)
    if spec.pattern is not None and not compile_pattern(spec.pattern)(value):
        yield _found(name, value, "pattern", f"send text that matches {spec.pattern} as a whole", spec)


def _some(values: Sequence[str]) -> str:
    """The allowed values, as far as they fit a line."""
    shown, limit = ", ".join(values), 500
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


def _of_number(name: str, spec: FieldSpec, value: float) -> Iterator[Found]:
    unit = f" {spec.unit}" if spec.unit else ""
    if spec.min is not None and value < spec.min:
        yield _found(name, value, "min", f"at least {spec.min:g}{unit} is accepted", spec)
    if spec.max is not None and value > spec.max:
        yield _found(name, value, "max", f"at most {spec.max:g}{unit} is accepted", spec)
