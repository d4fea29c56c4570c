"""Two small summaries that panes can be joined from: of the values' sizes, and of which values there were.

The first depends on a pane's values alone, whatever their order; the second on the order of the log. Neither
depends on chance.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from everloop_features.calculation import stable_hash
from everloop_features.nodes import PANES, RETAINED_PANES

__all__ = [
    "MOST_BUCKETS",
    "MOST_HASHES",
    "counted",
    "distinct",
    "histogram_quantile",
    "joined_samples",
    "seen",
]

STEPS = 16
"""Buckets per power of two: a bucket's middle is within 1/32 of every value in it."""

MOST_BUCKETS = 64
"""Buckets of one pane; with more, neighbours are joined."""

MOST_HASHES = 64
"""Hashes kept per key, window and operand: up to as many distinct values are counted exactly."""

HASH_BITS = 32

_LOWEST_EXPONENT = -1074
_ALL_PANES = (1 << RETAINED_PANES) - 1

Histogram = list[Any]
"""`[joins, {bucket: count}]`: how often buckets were joined in pairs, and how many values each holds."""

Sample = tuple[list[int], list[int], list[int]]
"""The newest pane it knows of, hashes (ascending), and for each hash the panes it was seen in."""


def counted(histogram: Histogram | None, value: float) -> Histogram:
    """A pane's histogram with one more value; the old one, which other state may share, stays as it is."""
    joins: int = histogram[0] if histogram else 0
    counts: dict[int, int] = histogram[1] if histogram else {}
    bucket = _joined(_bucket(value), joins)
    counts = {**counts, bucket: counts.get(bucket, 0) + 1}
    while len(counts) > MOST_BUCKETS:
        joins, finer, counts = joins + 1, counts, {}
        for number, count in finer.items():
            coarse = _joined(number, 1)
            counts[coarse] = counts.get(coarse, 0) + count
    return [joins, counts]


def histogram_quantile(histograms: Sequence[Histogram | None], share: float) -> float | None:
    """The quantile of what the panes hold together; null without values."""
    counts: dict[float, int] = {}
    for joins, buckets in filter(None, histograms):
        for bucket, count in buckets.items():
            key = bucket if not joins else _unjoined(bucket, joins)
            counts[key] = counts.get(key, 0) + count
    rank = max(1, math.ceil(share * sum(counts.values())))
    for key in sorted(counts):
        rank -= counts[key]
        if rank <= 0:
            return _middle(key)
    return None


def _bucket(value: float) -> int:
    """0 for zero; from the smallest float to the largest, 1 and up; negative numbers mirrored."""
    if value == 0.0:
        return 0
    fraction, exponent = math.frexp(abs(value))
    bucket = (exponent - _LOWEST_EXPONENT) * STEPS + int((fraction - 0.5) * 2 * STEPS) + 1
    return bucket if value > 0 else -bucket


def _joined(bucket: int, joins: int) -> int:
    """The bucket that a bucket becomes part of."""
    size = ((abs(bucket) - 1) >> joins) + 1
    return 0 if bucket == 0 else size if bucket > 0 else -size


def _unjoined(bucket: int, joins: int) -> float:
    """The middle of the buckets that were joined, as a bucket with a fraction."""
    if bucket == 0:
        return 0.0
    return math.copysign(((abs(bucket) - 1) << joins) + 0.5 * (1 << joins) + 0.5, bucket)


def _middle(bucket: float) -> float:
    """The value in the middle of a bucket."""
    if bucket == 0:
        return 0.0
    exponent, step = divmod(abs(bucket) - 1, STEPS)
    size = math.ldexp(0.5 + (step + 0.5) / (2 * STEPS), int(exponent) + _LOWEST_EXPONENT)
    return math.copysign(size, bucket)


def seen(sample: Sample, panes: Sequence[int], levels: list[int], index: int, value: Any) -> None:
    """Note that a value was there in the pane at `index`.

    Of a pane of level n, the sample holds the hashes below a share of 2⁻ⁿ of all. Beyond `MOST_HASHES` the
    level of all panes that are there grows; a later pane begins at 0.
    """
    clock, hashes, masks = sample
    _turn(clock, hashes, masks, panes[-1])
    number = stable_hash(value) >> HASH_BITS
    if number >> (HASH_BITS - levels[index]):
        return
    at, bit = bisect_left(hashes, number), 1 << panes[index] % RETAINED_PANES
    if at < len(hashes) and hashes[at] == number:
        masks[at] |= bit
        return
    hashes.insert(at, number)
    masks.insert(at, bit)
    if len(hashes) > MOST_HASHES:
        _thin(hashes, masks, levels)


def distinct(sample: Sample, panes: Sequence[int], levels: Sequence[int], current: int) -> float:
    """How many values the window of 32 panes up to `current` holds; `levels` are those of its panes."""
    clock, hashes, masks = sample
    if not hashes:
        return 0.0
    oldest = max(current - PANES, clock[0] - RETAINED_PANES, panes[-1] - RETAINED_PANES) + 1
    wanted, level = _ring(oldest, min(current, clock[0])), max(levels, default=0)
    sampled = bisect_left(hashes, 1 << (HASH_BITS - level))
    return float(sum([1 for mask in masks[:sampled] if mask & wanted]) << level)


def joined_samples(
    older: Sample, newer: Sample, older_panes: Sequence[int], newer_panes: Sequence[int], levels: list[int]
) -> Sample:
    """What `older` has of the one panes and `newer` of the others; `levels` are those of all panes."""
    masks: dict[int, int] = {}
    for (_, hashes, seen_in), panes in ((older, older_panes), (newer, newer_panes)):
        wanted = sum({1 << pane % RETAINED_PANES for pane in panes})
        for number, mask in zip(hashes, seen_in, strict=True):
            masks[number] = masks.get(number, 0) | mask & wanted
    kept = sorted(number for number, mask in masks.items() if mask)
    kept_masks = [masks[number] for number in kept]
    if len(kept) > MOST_HASHES:
        _thin(kept, kept_masks, levels)
    return (older[0] if older_panes else newer[0])[:], kept, kept_masks


def _turn(clock: list[int], hashes: list[int], masks: list[int], newest: int) -> None:
    """Forget the panes whose bits newer panes now take."""
    if clock and clock[0] < newest:
        stale = _ring(clock[0] + 1, newest)
        kept = [(number, left) for number, mask in zip(hashes, masks, strict=True) if (left := mask & ~stale)]
        hashes[:] = [number for number, _ in kept]
        masks[:] = [mask for _, mask in kept]
    clock[:] = [newest]


def _thin(hashes: list[int], masks: list[int], levels: list[int]) -> None:
    level = 0
    while len(hashes) > MOST_HASHES:
        level += 1
        sampled = bisect_left(hashes, 1 << (HASH_BITS - level))
        del hashes[sampled:], masks[sampled:]
    levels[:] = [max(before, level) for before in levels]


def _ring(oldest: int, newest: int) -> int:
    """The bits of the panes from `oldest` to `newest`; pane n has bit n modulo 64."""
    if newest < oldest:
        return 0
    if newest - oldest >= RETAINED_PANES - 1:
        return _ALL_PANES
    bits = ((1 << (newest - oldest + 1)) - 1) << oldest % RETAINED_PANES
    return (bits | bits >> RETAINED_PANES) & _ALL_PANES
