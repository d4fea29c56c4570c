"""What one day's values looked like, small enough to keep and fine enough to bin later.

A sketch counts each distinct value; numbers are rounded to four significant digits, then to fewer while there
are too many distinct ones. Sketches of parts of a day add up, in any order, to the sketch of the day.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

__all__ = ["Sketch", "Value", "add", "sketch"]

Value = bool | int | float | str | None
Sketch = Mapping[Value, int]
"""How often each value occurs; None is missing."""

DIGITS: Final = 4
DISTINCT_LIMIT: Final = 2000
OTHER: Final = "\x00other"
"""Stands for the rarest texts of a column that has too many."""


def sketch(values: Iterable[Value]) -> dict[Value, int]:
    """Count the values; NaN counts as missing, a boolean as its name."""
    return _bounded({_rounded(value, DIGITS): times for value, times in Counter(map(_known, values)).items()})


def add(sketches: Iterable[Sketch]) -> dict[Value, int]:
    """One sketch of all parts."""
    total: Counter[Value] = Counter()
    for part in sketches:
        total.update(part)
    return _bounded(total)


def _known(value: Value) -> Value:
    if isinstance(value, bool):
        return str(value).lower()
    return None if isinstance(value, float) and math.isnan(value) else value


def _bounded(counts: Mapping[Value, int]) -> dict[Value, int]:
    kept = dict(counts)
    for digits in range(DIGITS - 1, 0, -1):
        if len(kept) <= DISTINCT_LIMIT:
            break
        coarser: Counter[Value] = Counter()
        for value, times in kept.items():
            coarser[_rounded(value, digits)] += times
        kept = dict(coarser)
    return kept if len(kept) <= DISTINCT_LIMIT else _without_rare(kept)


def _without_rare(counts: Mapping[Value, int]) -> dict[Value, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    kept = dict(ordered[: DISTINCT_LIMIT - 1])
    rest = sum(times for _, times in ordered[DISTINCT_LIMIT - 1 :])
    kept[OTHER] = kept.get(OTHER, 0) + rest
    return kept


def _rounded(value: Value, digits: int) -> Value:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(f"{value:.{digits - 1}e}")
    return value
