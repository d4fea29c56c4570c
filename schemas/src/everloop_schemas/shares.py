"""What a share learned from past windows means, and how surprising a new window's share is.

A share that is the same in each of the past windows but for chance has the variance p(1-p)/n. Real ones vary
more, because rows of a window resemble one another (a storm, a broken station, an airline's rush hour): two
rows of one window have the correlation r. The windows' own shares then follow a beta distribution with
mean p and variance p(1-p)r, and each window's rows a binomial of its share (beta-binomial, Skellam 1948).
The chance to see a share f or beyond among n rows is taken from the likeliest split of the deviation between
the two: that the window's share is t or beyond (the beta's tail), and that f is seen where t holds (Chernoff:
exp(-n KL(f, t))). So a window of few rows can hardly be surprising, and neither can one of many rows where
windows differ anyway.

Past windows themselves say how far windows stray: `worst` is the most surprising of them, and a new one
breaks an invariant only beyond that. An invariant that its own training data breaks is none.
"""

import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "SharePattern",
    "extreme_share",
    "learn_share",
    "may_surprise",
    "surprise",
    "usual_share",
]

LEAST_CORRELATION: Final = 0.01
"""Of rows in a window: at most a hundred count, so that no alarm is about a difference of no matter."""
_MOST_CORRELATION: Final = 0.999
_STEPS: Final = 14
_SPLITS: Final = 16
_WORST_TRIED: Final = 5
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_CLOSE: Final = 1e-10


class SharePattern(BaseModel):
    """How the share of some rows (null, out of range, of one category) behaves from window to window."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    share: float = Field(ge=0, le=1, description="of all rows of the past windows")
    error: float = Field(ge=0, description="standard error of `share`: few windows say little")
    correlation: float = Field(ge=0, le=1, description="of two rows in one window, with its own error added")
    worst: float = Field(ge=0, description="surprise of the most surprising past window")
    windows: int = Field(ge=0)


def learn_share(counts: Sequence[int], totals: Sequence[int]) -> SharePattern:
    """The pattern of windows with `counts[i]` of `totals[i]` rows.

    The share is that of all rows, moved towards a half by half a row: what never happened may happen. The
    correlation is the moment estimate from the products of pairs of rows within windows; two relative
    standard errors of a variance, sqrt(2 / windows), are added: among few windows none may have been bad.
    """
    usual = usual_share(counts, totals)
    share, correlation = usual.share, usual.correlation
    past = ((k / n, n) for k, n in zip(counts, totals, strict=True) if n > 0)
    bounded = [(_roughly(*each, share, correlation), *each) for each in past]
    bounded.sort(key=itemgetter(0), reverse=True)
    worst = 0.0
    for bound, observed, rows in bounded[:_WORST_TRIED]:
        if bound > worst:
            worst = max(worst, surprise(observed, rows, share, correlation))
    return usual.model_copy(update={"worst": worst})


def usual_share(counts: Sequence[int], totals: Sequence[int]) -> SharePattern:
    """What `learn_share` says but for `worst`, which takes nearly all of its time."""
    pairs = [(k, n) for k, n in zip(counts, totals, strict=True) if n > 0]
    rows, found = sum(n for _, n in pairs), sum(k for k, _ in pairs)
    share = (found + 0.5) / (rows + 1)
    windows = max(len(pairs), 1)
    correlation = min(_correlation(pairs, share) * (1 + 2 * math.sqrt(2 / windows)), _MOST_CORRELATION)
    error = math.sqrt(
        share * (1 - share) * (correlation + (1 - correlation) * windows / (rows + 1)) / windows
    )
    return SharePattern(share=share, error=error, correlation=correlation, worst=0, windows=len(pairs))


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
    if rows <= 0 or observed == share:
        return 0.0
    if observed < share:
        return surprise(1 - observed, rows, 1 - share, correlation)
    rough = _roughly(observed, rows, share, correlation)
    if share <= 0 or correlation < LEAST_CORRELATION:  # a declared share: windows do not differ
        return rough
    return min(rough, _best_split(observed, rows, share, correlation))


def may_surprise(observed: float, rows: int, share: float, correlation: float, limit: float) -> bool:
    """Whether the surprise may be above `limit`: quick, and never wrong when it says no."""
    return rows > 0 and _roughly(observed, rows, share, correlation) > limit


def _roughly(observed: float, rows: int, share: float, correlation: float) -> float:
    """Chernoff's bound for the number of independent rows that tell as much (Kish's design effect)."""
    return rows / (1 + (rows - 1) * correlation) * _divergence(observed, share)


def _best_split(observed: float, rows: int, share: float, correlation: float) -> float:
    """The least of both parts' surprise over the window's own share, by golden sections."""
    weight = 1 / correlation - 1
    alpha, beta = share * weight, (1 - share) * weight

    def cost(own: float) -> float:
        return rows * _divergence(observed, own) + _beta_tail(own, alpha, beta)

    low, high = share, min(observed, 1 - 1e-12)
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = cost(left), cost(right)
    for _ in range(_SPLITS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = cost(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = cost(right)
    return max(0.0, min(at_left, at_right))


def _beta_tail(value: float, alpha: float, beta: float) -> float:
    """-log of the chance that a beta variable is above `value`."""
    if value <= 0:
        return 0.0
    front = alpha * math.log(value) + beta * math.log1p(-value)
    front += math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta)
    if value > (alpha + 1) / (alpha + beta + 2):
        return -(front + math.log(_continued(1 - value, beta, alpha) / beta))
    below = math.exp(front) * _continued(value, alpha, beta) / alpha
    return -math.log(max(1 - below, 1e-300))


def _continued(value: float, alpha: float, beta: float) -> float:
    """The continued fraction of the incomplete beta function (Lentz; Numerical Recipes 6.4)."""
    tiny = 1e-300
    ratio, delta = 1.0, 1 / _far(1 - (alpha + beta) * value / (alpha + 1), tiny)
    found = delta
    for n in range(1, 200):
        even = n * (beta - n) * value / ((alpha + 2 * n - 1) * (alpha + 2 * n))
        odd = -(alpha + n) * (alpha + beta + n) * value / ((alpha + 2 * n) * (alpha + 2 * n + 1))
        for term in (even, odd):
            delta = 1 / _far(1 + term * delta, tiny)
            ratio = _far(1 + term / ratio, tiny)
            found *= delta * ratio
        if abs(delta * ratio - 1) < _CLOSE:
            break
    return found


def _far(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


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
