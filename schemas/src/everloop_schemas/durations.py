"""Durations as people write them in a pipeline file: `30d`, `8h`, `5m`, `90s`, `100ms`."""

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

__all__ = ["Duration", "format_duration", "parse_duration"]

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_PATTERN = re.compile(r"(?a:(\d{1,9}(?:\.\d{1,6})?)(ms|[wdhms]))")
_LONGEST = timedelta(days=36_500)
_MEND = "write a number and a unit: 30d, 8h, 5m, 90s or 100ms"


def parse_duration(text: str) -> timedelta:
    """Read `text`, such as `1.5h`; up to a hundred years.

    Raises:
        ValueError: with the rule in words.

    Example:
        >>> parse_duration("90s")
        datetime.timedelta(seconds=90)
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no duration")
    amount, unit = float(found[1]), _UNITS[found[2]]
    if amount * unit.total_seconds() > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is longer than a hundred years")
    return amount * unit


def format_duration(duration: timedelta) -> str:
    """Write `duration` in the largest unit that divides it: the inverse of `parse_duration`.

    Example:
        >>> format_duration(timedelta(hours=36))
        '36h'
    """
    for name in ("d", "h", "m", "s"):
        if duration and not duration % _UNITS[name]:
            return f"{duration // _UNITS[name]}{name}"
    milliseconds = duration / _UNITS["ms"]
    return f"{milliseconds:.3f}".rstrip("0").rstrip(".") + "ms" if duration else "0s"


def _read(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise _refused(f"{repr(value)[:40]} is no duration")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise _refused(str(error)) from None


def _refused(problem: str) -> PydanticCustomError:
    return PydanticCustomError("duration", "{problem}", {"problem": problem, "mend": _MEND})


Duration = Annotated[
    timedelta,
    BeforeValidator(_read),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\d{1,9}(\.\d{1,6})?(ms|[wdhms])$",
            "examples": ["30d", "8h", "5m", "90s", "100ms"],
        }
    ),
]
"""A time span; in JSON and YAML its text."""
