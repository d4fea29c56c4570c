"""The slow way: look at each field of a refused record and say everything that is wrong with it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from everloop_schemas.events import Violation
from everloop_schemas.pipeline import FieldSpec

__all__ = ["Expected", "explain", "text_of"]

_LONGEST_VALUE: Final = 200
_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Expected:
    """What a record of one kind holds."""

    event_time: str
    fields: Mapping[str, FieldSpec]
    longest_id: int


def explain(data: Mapping[str, Any], expected: Expected) -> tuple[list[Violation], dict[str, Any]]:
    """Every violation, in the order id, times, declared fields, unknown fields; and the record, mended.

    Mended means: whole numbers written as floats (`22.0`) are whole where the pipeline declares an integer.
    """
    found = [*_of_id(data, expected.longest_id), *_of_time(data, expected.event_time, required=True)]
    found += _of_time(data, "known_at", required=False)
    for name, spec in expected.fields.items():
        found += _of_field(name, spec, data.get(name, _ABSENT))
    known = {"id", "known_at", expected.event_time, *expected.fields}
    found += [
        _violation(name, value, "unknown-field", f"send only declared fields: {', '.join(sorted(known))}")
        for name, value in data.items()
        if name not in known
    ]
    return found, {name: _whole(value, expected.fields.get(name)) for name, value in data.items()}


def text_of(value: object) -> str:
    """A value as text for people, shortened."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return (
        value[:_LONGEST_VALUE] if isinstance(value, str) else json.dumps(value, default=str)[:_LONGEST_VALUE]
    )


def _violation(field: str, value: object, rule: str, mend: str) -> Violation:
    text = "" if value is _ABSENT else text_of(value)
    return Violation(field=field[:_LONGEST_VALUE], value=text, rule=rule, mend=mend)


def _of_id(data: Mapping[str, Any], longest: int) -> Iterator[Violation]:
    value = data.get("id", _ABSENT)
    mend = f"send text of 1 to {longest} characters, the same for an observation and its label"
    if value is _ABSENT:
        yield _violation("id", value, "required", mend)
    elif not isinstance(value, str) or not 0 < len(value) <= longest:
        yield _violation("id", value, "id", mend)
    elif any(character < " " or character == "\x7f" for character in value):
        yield _violation("id", value, "control-character", "send an id without control characters")


def _of_time(data: Mapping[str, Any], name: str, *, required: bool) -> Iterator[Violation]:
    value = data.get(name, _ABSENT)
    if value is _ABSENT:
        if required:
            yield _violation(name, value, "required", "add when it happened, such as 2013-01-01T05:15:00Z")
    elif _time(value) is None:
        yield _violation(name, value, "time", "write RFC 3339 with a time zone, such as 2013-01-01T05:15:00Z")


def _time(value: object) -> datetime | None:
    """The time in UTC, or None for what is no RFC 3339 time with a zone."""
    try:
        return msgspec.convert(value, _Time).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def _of_field(name: str, spec: FieldSpec, value: Any) -> Iterator[Violation]:
    if value is _ABSENT or value is None:
        if not spec.nullable:
            yield _violation(name, value, "required", f"add {name}, or declare it nullable")
    elif not _has_type(spec, value):
        yield _violation(name, value, "type", f"send {_WORDS[spec.type]}")
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


def _of_text(name: str, spec: FieldSpec, value: str) -> Iterator[Violation]:
    if "\x00" in value:
        yield _violation(name, value, "control-character", "send text without NUL characters")
    if spec.values is not None and value not in spec.values:
        yield _violation(name, value, "allowed-values", f"send one of {_some(spec.values)}")


def _some(values: list[str]) -> str:
    """The allowed values, as far as they fit a line."""
    shown, limit = ", ".join(values), 500
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


def _of_number(name: str, spec: FieldSpec, value: float) -> Iterator[Violation]:
    unit = f" {spec.unit}" if spec.unit else ""
    if spec.min is not None and value < spec.min:
        yield _violation(name, value, "min", f"at least {spec.min:g}{unit} is accepted")
    if spec.max is not None and value > spec.max:
        yield _violation(name, value, "max", f"at most {spec.max:g}{unit} is accepted")
