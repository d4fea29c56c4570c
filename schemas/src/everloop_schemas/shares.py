"""What a share learned from past windows means, and how surprising a new window's share is.

A share that is the same in each of the past windows but for chance has the variance p(1-p)/n. Real ones vary
more, because rows of a window resemble one another (a storm, a broken station, an airline's rush hour): two
rows of one window have the correlation r, and n of them tell as much as n / (1 + (n-1) r) independent ones
(Kish's design effect). With so many rows the chance of a share f or beyond, where p is usual, is at most
exp(-n KL(f, p)) (Chernoff), at any n: a window of few rows can hardly be surprising.

Past windows themselves say how far windows stray: `worst` is the most surprising of them, and a new one
breaks an invariant only beyond that. An invariant that its own training data breaks is none.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["SharePattern", "extreme_share", "learn_share", "surprise"]

LEAST_CORRELATION: Final = 0.01
"""Of rows in a window: at most a hundred count, so that no alarm is about a difference of no matter."""
_MOST_CORRELATION: Final = 0.999
_STEPS: Final = 60


class SharePattern(BaseModel):
    """How the share of some rows (null, out of range, of one category) behaves from window to window."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    share: float = Field(ge=0, le=1, description="of all rows of the past windows")
    correlation: float = Field(ge=0, le=1, description="of two rows in one window")
    worst: float = Field(ge=0, description="surprise of the most surprising past window")
    windows: int = Field(ge=0)


def learn_share(counts: Sequence[int], totals: Sequence[int]) -> SharePattern:
    """The pattern of windows with `counts[i]` of `totals[i]` rows.

    The share is that of all rows, moved towards a half by half a row: what never happened may happen. The
    correlation is the moment estimate from the squared differences of pairs of rows within windows.
    """
    pairs = [(k, n) for k, n in zip(counts, totals, strict=True) if n > 0]
    rows, found = sum(n for _, n in pairs), sum(k for k, _ in pairs)
    share = (found + 0.5) / (rows + 1)
    correlation = _correlation(pairs, share)
    worst = max((surprise(k / n, n, share, correlation) for k, n in pairs), default=0.0)
    return SharePattern(share=share, correlation=correlation, worst=worst, windows=len(pairs))


def _correlation(pairs: Iterable[tuple[int, int]], share: float) -> float:
    """Of two rows in one window: the mean product of their deviations over the variance of one."""
    products = weights = 0.0
    for count, rows in pairs:
        deviation = count - rows * share
        own = count * (1 - share) ** 2 + (rows - count) * share**2
        products += (deviation * deviation - own) / rows
        weights += rows - 1
    if weights <= 0:
        return _MOST_CORRELATION
    return min(max(products / weights / (share * (1 - share)), LEAST_CORRELATION), _MOST_CORRELATION)


def surprise(observed: float, rows: int, share: float, correlation: float) -> float:
    """-log of a bound of the chance to see `observed` or beyond among `rows` rows where `share` is usual.

    Example:
        >>> round(surprise(1.0, 1, 0.05, 0.01), 2), surprise(0.05, 10_000, 0.05, 0.01)
        (3.0, 0.0)
    """
    if rows <= 0:
        return 0.0
    return rows / (1 + (rows - 1) * correlation) * _divergence(observed, share)


def extreme_share(rows: int, share: float, correlation: float, limit: float, *, upwards: bool) -> float:
    """The share at which the surprise reaches `limit`: above `share`, or below it; 1 or 0 where none does."""
    inside, outside = share, 1.0 if upwards else 0.0
    if surprise(outside, rows, share, correlation) <= limit:
        return outside
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if surprise(middle, rows, share, correlation) <= limit:
            inside = middle
        else:
            outside = middle
    return inside


def _divergence(observed: float, share: float) -> float:
    """Kullback-Leibler divergence of two coins."""
    if share <= 0 or share >= 1:
        return 0.0 if observed == share else math.inf
    total = 0.0
    if observed > 0:
        total += observed * math.log(observed / share)
    if observed < 1:
        total += (1 - observed) * math.log((1 - observed) / (1 - share))
    return max(total, 0.0)
