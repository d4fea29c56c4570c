"""What generated code calls at run time: total functions, with null where there is no finite answer."""

import math
import struct
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from hashlib import blake2b
from importlib import resources
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

__all__ = [
    "DISTANCES",
    "DURATIONS",
    "EPOCH",
    "bucket",
    "civil",
    "day_of_year",
    "earth_radius",
    "exponential",
    "hash_bucket",
    "haversine",
    "integer",
    "local",
    "microseconds",
    "microseconds_of",
    "named_edges",
    "number",
    "power",
    "replaced",
    "stable_hash",
    "timestamp",
    "turn",
    "zone",
]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

DISTANCES = {"km": 6_371.0088, "m": 6_371_008.8, "mi": 3_958.7613, "nmi": 3_440.0695}
"""The earth's mean radius (IUGG) in each unit of distance."""

DURATIONS = {"s": 1e6, "min": 6e7, "h": 3.6e9, "d": 8.64e10}
"""Microseconds in each unit of time."""

SLOT_US = 900_000_000
"""A quarter of an hour: a zone's offset is looked up once for each."""

LONGEST_TEXT = 10_000
"""Characters that `replace` may make: nested, it could fill the memory."""


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


def local(moment_us: int, where: tzinfo) -> int | None:
    """The wall clock in a time zone, as if it were UTC; null outside the years 1 to 9999."""
    offset_us = _offset_us(moment_us // SLOT_US, where)
    if offset_us is None:
        offset_us = _exact_offset_us(moment_us, where)
    return None if offset_us is None else moment_us + offset_us


@lru_cache(maxsize=4096)
def _offset_us(slot: int, where: tzinfo) -> int | None:
    """The offset from UTC that a zone keeps for a whole slot of time; None if it changes in it."""
    first = _exact_offset_us(slot * SLOT_US, where)
    return first if first == _exact_offset_us((slot + 1) * SLOT_US - 1, where) else None


def _exact_offset_us(moment_us: int, where: tzinfo) -> int | None:
    try:
        offset = (EPOCH + timedelta(microseconds=moment_us)).astimezone(where).utcoffset()
    except OverflowError:
        return None
    return None if offset is None else offset // timedelta(microseconds=1)


@lru_cache(maxsize=4096)
def civil(day: int) -> date | None:
    """The date of a day since 1970; null outside the years 1 to 9999."""
    try:
        return date.fromordinal(EPOCH.toordinal() + day)
    except (ValueError, OverflowError):
        return None


def day_of_year(day: date) -> int:
    """1 for 1 January."""
    return day.toordinal() - date(day.year, 1, 1).toordinal() + 1


def turn(period: float) -> float:
    """What a number is multiplied by so that `period` becomes a full turn."""
    return math.tau / period


def microseconds_of(unit: str) -> float:
    """Microseconds in one unit of time."""
    return DURATIONS[unit]


def earth_radius(unit: str) -> float:
    """The earth's mean radius."""
    return DISTANCES[unit]


def haversine(
    latitude: float, longitude: float, to_latitude: float, to_longitude: float, radius: float
) -> float | None:
    """The great-circle distance of two points in degrees; null beyond the poles or more than a turn away."""
    if max(abs(latitude), abs(to_latitude)) > 90.0 or max(abs(longitude), abs(to_longitude)) > 360.0:  # noqa: PLR2004  # degrees
        return None
    one, other = math.radians(latitude), math.radians(to_latitude)
    north = math.sin((other - one) / 2.0)
    east = math.sin(math.radians(to_longitude - longitude) / 2.0)
    chord = north * north + math.cos(one) * math.cos(other) * east * east
    return 2.0 * radius * math.asin(math.sqrt(min(1.0, chord)))


def stable_hash(value: float | str) -> int:
    """64 bits that depend on the value alone: not on the host, the process or Python's version."""
    if isinstance(value, str):
        data = b"t" + value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bool):
        data = b"b1" if value else b"b0"
    else:
        data = b"n" + struct.pack("<d", value + 0.0)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def hash_bucket(value: float | str, buckets: int) -> str:
    """One of `buckets` categories, by the value's hash."""
    return str(stable_hash(value) % buckets)


def named_edges(edges: Sequence[float]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Edges, and the names of the intervals between them: `<0`, `0..10`, `>=10`."""
    said = [f"{edge:.0f}" if edge.is_integer() and abs(edge) < 1e15 else repr(edge) for edge in edges]  # noqa: PLR2004  # digits
    between = (f"{low}..{high}" for low, high in pairwise(said))
    return tuple(edges), (f"<{said[0]}", *between, f">={said[-1]}")


def bucket(value: float, named: tuple[Sequence[float], Sequence[str]]) -> str:
    """The name of the interval that holds the value; an interval holds its lower edge."""
    return named[1][bisect_right(named[0], value)]


def replaced(value: str, change: tuple[str, str]) -> str | None:
    """All of one text in a value replaced by another; null when that becomes too long."""
    old, new = change
    longer = len(new) - len(old)
    if longer > 0 and len(value) + value.count(old) * longer > LONGEST_TEXT:
        return None
    return value.replace(old, new)
