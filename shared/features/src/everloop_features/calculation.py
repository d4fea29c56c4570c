"""What generated code calls at run time: total functions, with null where there is no finite answer."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo

__all__ = [
    "EPOCH",
    "day_of_year",
    "exponential",
    "extreme",
    "integer",
    "last",
    "local",
    "mean",
    "microseconds",
    "number",
    "power",
    "timestamp",
    "total",
    "zone",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime, exactly."""
    return (moment - EPOCH) // _MICROSECOND


def number(value: Any) -> float | None:
    """A JSON number as a finite float; anything else is null."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def integer(value: Any) -> int | None:
    """A whole number, also when written 5.0, for use in a key; anything else is null."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return None


def timestamp(value: Any) -> int | None:
    """An RFC 3339 text or an aware datetime as microseconds since 1970; anything else is null."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return microseconds(moment)
    except (TypeError, ValueError, OverflowError):
        return None


def power(base: float, exponent: float) -> float | None:
    """`base ** exponent`, null where that is complex, infinite or 0 to a negative power."""
    try:
        result = math.pow(base, exponent)
    except (OverflowError, ValueError):
        return None
    return result if math.isfinite(result) else None


def exponential(value: float) -> float | None:
    """`exp(value)`, null above the largest float."""
    try:
        return math.exp(value)
    except OverflowError:
        return None


@cache
def zone(name: str) -> tzinfo:
    """A time zone from the pinned `tzdata` package, so every host computes the same hours.

    Raises KeyError for a name that is not in the database.
    """
    parts = name.split("/")
    if not all(part and part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in parts):
        raise KeyError(name)
    source = resources.files("tzdata").joinpath("zoneinfo", *parts)
    try:
        with source.open("rb") as file:
            return ZoneInfo.from_file(file, key=name)
    except (OSError, ValueError) as error:
        raise KeyError(name) from error


def local(moment_us: int, where: tzinfo) -> datetime | None:
    """The wall clock at `moment_us` in a time zone; null outside the years 1 to 9999."""
    try:
        return (EPOCH + timedelta(microseconds=moment_us)).astimezone(where)
    except OverflowError:
        return None


def day_of_year(moment: datetime) -> int:
    """1 for 1 January."""
    return moment.toordinal() - date(moment.year, 1, 1).toordinal() + 1


def total(sums: Sequence[float]) -> float | None:
    """The correctly rounded sum, whatever the order; null when it is not finite."""
    try:
        result = math.fsum(sums)
    except (OverflowError, ValueError):
        return None
    return result if math.isfinite(result) else None


def mean(sums: Sequence[float], count: int) -> float | None:
    """Total over count; null without values."""
    whole = total(sums) if count else None
    return None if whole is None else whole / count


def extreme(value: float) -> float | None:
    """The largest or smallest of the panes; infinity stands for `no value` there."""
    return value if math.isfinite(value) else None


def last(times: Sequence[int | None], values: Sequence[Any], until_us: int, window_us: int) -> Any:
    """The newest value not later than `until_us` and within the window; null if there is none."""
    for index in range(len(times) - 1, -1, -1):
        moment = times[index]
        if moment is not None and moment <= until_us:
            return values[index] if moment > until_us - window_us else None
    return None
