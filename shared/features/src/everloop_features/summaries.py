"""What generated code makes of an aggregate's state: total functions, null where no answer is finite."""

import math
from collections.abc import Sequence
from typing import Any

__all__ = [
    "decayed_mean",
    "first",
    "last",
    "mean",
    "newest",
    "present",
    "quantile",
    "recent_mean",
    "spread",
    "spread_of",
    "total",
]


def total(sums: Sequence[float]) -> float | None:
    """The correctly rounded sum, whatever the order; null when it is not finite."""
    try:
        result = math.fsum(sums)
    except (OverflowError, ValueError):
        return None
    return result if math.isfinite(result) else None


def mean(sums: Sequence[float], count: int) -> float | None:
    """Total over count; null without values."""
    if not count:
        return None
    try:
        whole = math.fsum(sums)
    except (OverflowError, ValueError):
        return None
    return whole / count if whole - whole == 0.0 else None


def spread(sums: Sequence[float], counts: Sequence[int], squares: Sequence[float]) -> float | None:
    """The sample's standard deviation from each pane's sum, count and sum of squares about its mean.

    Panes are joined as by Chan, Golub and LeVeque: nothing large is subtracted from something large.
    """
    count = sum(counts)
    middle = mean(sums, count) if count > 1 else None
    if middle is None:
        return None
    off = [(part / number - middle, number) for part, number in zip(sums, counts, strict=True) if number]
    return _root(total([*squares, *(number * distance * distance for distance, number in off)]), count)


def spread_of(values: Sequence[float]) -> float | None:
    """The sample's standard deviation of values; null for fewer than two."""
    middle = mean(values, len(values)) if len(values) > 1 else None
    if middle is None:
        return None
    off = [value - middle for value in values]
    return _root(total([distance * distance for distance in off]), len(values))


def _root(squares: float | None, count: int) -> float | None:
    return None if squares is None else math.sqrt(squares / (count - 1))


def first(times: Sequence[int | None], values: Sequence[Any], until_us: int) -> Any:
    """The oldest value, unless it is later than `until_us`; null if there is none."""
    for index, moment in enumerate(times):
        if moment is not None:
            return values[index] if moment <= until_us else None
    return None


def last(times: Sequence[int | None], values: Sequence[Any], until_us: int, window_us: int) -> Any:
    """The newest value not later than `until_us` and within the window; null if there is none."""
    for index in range(len(times) - 1, -1, -1):
        moment = times[index]
        if moment is not None and moment <= until_us:
            return values[index] if moment > until_us - window_us else None
    return None


def decayed_mean(
    panes: Sequence[int],
    sums: Sequence[float],
    weights: Sequence[float],
    current: int,
    pane_half_lives: float,
) -> float | None:
    """The mean of values that weigh half a half-life earlier; sums and weights are as of each pane's end."""
    decay = [2.0 ** ((pane - current) * pane_half_lives) for pane in panes]
    weight = total([part * factor for part, factor in zip(weights, decay, strict=True)])
    whole = total([part * factor for part, factor in zip(sums, decay, strict=True)])
    return whole / weight if whole is not None and weight else None


def recent_mean(
    times: Sequence[int], values: Sequence[float | None], count: int, half_life_us: float
) -> float | None:
    """The mean of the first `count` values, each weighing by its age at the newest of them."""
    known = [(times[index], value) for index, value in enumerate(values[:count]) if value is not None]
    weights = [2.0 ** ((moment - known[-1][0]) / half_life_us) for moment, _ in known]
    whole = total([value * weight for (_, value), weight in zip(known, weights, strict=True)])
    return whole / math.fsum(weights) if known and whole is not None else None


def present(values: Sequence[Any], count: int) -> list[Any]:
    """Those of the first `count` values that are not null."""
    return [value for value in values[:count] if value is not None]


def newest(times: Sequence[int], values: Sequence[Any] | None, count: int) -> int | None:
    """The time of the newest of the first `count` records, or of the newest whose value is not null."""
    for index in range(count - 1, -1, -1):
        if values is None or values[index] is not None:
            return times[index]
    return None


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least a share of the values do not exceed; null without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
