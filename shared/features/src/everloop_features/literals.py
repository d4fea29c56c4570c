"""Arguments that must be constants: each reader gives their value or raises ExpressionError."""

import ast
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from everloop_features.calculation import DISTANCES, DURATIONS, zone
from everloop_features.holiday_calendar import holidays_of
from everloop_features.problems import ExpressionError

__all__ = [
    "a_number",
    "buckets",
    "characters",
    "choice",
    "country",
    "digits",
    "duration_us",
    "edges",
    "is_finite",
    "period",
    "replacement",
    "share",
    "text",
    "whole",
    "zone_name",
]

T = TypeVar("T")

MOST_DIGITS = 15
MOST_EDGES = 100
MOST_BUCKETS = 1_000_000
LONGEST_TEXT = 1_000
LONGEST_SECONDS = 10 * 366 * 86_400

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"([1-9][0-9]{0,8})([smhdw])")


def is_finite(value: float) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def a_number(tree: ast.expr | None) -> float | None:
    """A literal number, which may have a sign; None for anything else."""
    match tree:
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as below):
            value = a_number(below)
            return None if value is None else -value
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and is_finite(value):
            return float(value)
        case _:
            return None


def text(tree: ast.expr | None) -> str | None:
    """A literal text; None for anything else."""
    return tree.value if isinstance(tree, ast.Constant) and isinstance(tree.value, str) else None


def whole(tree: ast.expr | None, least: int, most: int) -> int | None:
    """A literal whole number within bounds; None for anything else."""
    match tree:
        case ast.Constant(value=int(value)) if not isinstance(value, bool) and least <= value <= most:
            return value
        case _:
            return None


def digits(trees: Sequence[ast.expr]) -> int:
    """The second argument of round, 0 without one."""
    found = whole(trees[0], 0, MOST_DIGITS) if trees else 0
    return _known(found, "round's digits are no constant", f"write 0 to {MOST_DIGITS}")


def characters(trees: Sequence[ast.expr]) -> int:
    """How many characters of a text."""
    found = whole(trees[0], 1, LONGEST_TEXT)
    return _known(found, "the number of characters is no constant", f"write 1 to {LONGEST_TEXT}")


def buckets(trees: Sequence[ast.expr]) -> int:
    """How many hash buckets."""
    found = whole(trees[0], 2, MOST_BUCKETS)
    return _known(found, "the number of buckets is no constant", f"write 2 to {MOST_BUCKETS}")


def period(trees: Sequence[ast.expr]) -> float:
    """The period of a cycle."""
    found = a_number(trees[0])
    return _known(found if found and found > 0 else None, "the period is no positive constant", "write 24")


def share(tree: ast.expr) -> float:
    """A quantile's share."""
    found = a_number(tree)
    valid = found is not None and 0 <= found <= 1
    return _known(
        found if valid else None, "the share is no constant from 0 to 1", "write quantile(x, 0.9, …)"
    )


def replacement(trees: Sequence[ast.expr]) -> tuple[str, str]:
    """What `replace` looks for, and what it puts there."""
    old, new = (text(tree) for tree in trees)
    found = (old, new) if old and new is not None and max(len(old), len(new)) <= LONGEST_TEXT else None
    return _known(found, "replace needs two texts", "write replace(x, 'old', 'new')")


def edges(trees: Sequence[ast.expr]) -> tuple[float, ...]:
    """Ascending numbers in a list."""
    parts = trees[0].elts if isinstance(trees[0], ast.List | ast.Tuple) else []
    found = [a_number(part) for part in parts]
    numbers = tuple(number for number in found if number is not None)
    ascending = all(before < after for before, after in pairwise(numbers))
    valid = 0 < len(found) <= MOST_EDGES and len(numbers) == len(found) and ascending
    return _known(
        numbers if valid else None,
        "the edges are no ascending list of constants",
        f"write bucket(x, [0, 10, 100]), at most {MOST_EDGES} edges",
    )


def country(trees: Sequence[ast.expr]) -> str:
    """A country whose holidays are known. Raises ExpressionError with rule `country`."""
    code = text(trees[0])
    try:
        holidays_of(code or "")
    except KeyError as error:
        shown = ast.unparse(trees[0])
        mend = "use an ISO 3166 code: 'US', or 'US-NY' for a part of a country"
        raise ExpressionError("country", f"no holidays are known for {shown}", mend) from error
    return code or ""


def zone_name(tree: ast.expr | None) -> str:
    """The time zone of a calendar function, UTC without one."""
    if tree is None:
        return "UTC"
    name = _known(text(tree), "tz is no text", "write tz='America/New_York'")
    try:
        zone(name)
    except KeyError as error:
        raise ExpressionError(
            "time-zone", f"{name!r} is no time zone", "use an IANA name such as 'America/New_York'"
        ) from error
    return name


def choice(tree: ast.expr | None, kind: str) -> str:
    """The `unit` of a distance or a duration; km or s without one."""
    known = DISTANCES if kind == "distance" else DURATIONS
    default = "km" if kind == "distance" else "s"
    found = default if tree is None else text(tree)
    return _known(found if found in known else None, f"unit is no unit of {kind}", f"use one of {[*known]}")


def duration_us(tree: ast.expr | None, rule: str, what: str) -> int:
    """A duration such as '1h' in microseconds: whole seconds, so that a 32nd of it is whole microseconds."""
    written = text(tree) or ""
    parts = _DURATION.fullmatch(written)
    if parts is None:
        raise ExpressionError(rule, what, f"write {rule.replace('-', '_')}='1h' (s, m, h, d or w)")
    seconds = int(parts[1]) * _SECONDS[parts[2]]
    if seconds > LONGEST_SECONDS:
        raise ExpressionError(rule, f"{written} is too long", "use at most ten years")
    return seconds * 1_000_000


def _known(value: T | None, message: str, mend: str) -> T:
    if value is None:
        raise ExpressionError("arguments", message, mend)
    return value
