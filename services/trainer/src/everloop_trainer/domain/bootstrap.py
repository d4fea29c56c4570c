"""How sure one may be that one model beats another: a paired bootstrap over blocks of time.

Rows of one day resemble each other, so whole days are drawn: single rows would claim too much certainty.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.metrics import row_losses, weighted_auc

__all__ = ["Blocks", "blocks", "win_share"]

RESAMPLES = 1000
_AUC_RESAMPLES = 500
_MINIMUM_BLOCKS = 8
_SECOND = 1_000_000
_LENGTHS = {"day": 86_400 * _SECOND, "hour": 3_600 * _SECOND, "minute": 60 * _SECOND}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """`of_row` [n] numbers each row's block, 0 … count - 1."""

    unit: str
    of_row: Ints
    count: int


def blocks(event_time: Ints) -> Blocks | None:
    """Cut the test period into days, hours or minutes: the longest that gives eight blocks; else None."""
    for unit, length in _LENGTHS.items():
        names, of_row = np.unique(event_time // length, return_inverse=True)
        if len(names) >= _MINIMUM_BLOCKS:
            return Blocks(unit, of_row.astype(np.int64), len(names))
    return None


def win_share(
    name: str, truth: Floats, candidate: Floats, other: Floats, *, by: Blocks | None, seed: int
) -> float | None:
    """The share of resamples in which the candidate is better; a tie counts half; None without blocks."""
    if by is None:
        return None
    draws = _draws(by.count, seed, _AUC_RESAMPLES if name == "auc" else RESAMPLES)
    if name == "auc":
        gain = _auc_gain(truth, candidate, other, draws[:, by.of_row])
    else:
        gain = _loss_gain(name, truth, candidate, other, by=by, draws=draws)
    return float(np.mean(np.where(gain == 0, 0.5, gain > 0)))


def _draws(count: int, seed: int, resamples: int) -> Floats:
    """How often each block is drawn in each resample [resamples, count].

    The old generator is used because numpy promises that its stream never changes.
    """
    picks = (np.random.RandomState(seed).random_sample((resamples, count)) * count).astype(np.int64)
    return np.stack([np.bincount(row, minlength=count) for row in picks]).astype(np.float64)


def _loss_gain(
    name: str, truth: Floats, candidate: Floats, other: Floats, *, by: Blocks, draws: Floats
) -> Floats:
    difference = row_losses(name, truth, other) - row_losses(name, truth, candidate)
    gain: Floats = draws @ np.bincount(by.of_row, weights=difference, minlength=by.count)
    return gain


def _auc_gain(truth: Floats, candidate: Floats, other: Floats, weights: Floats) -> Floats:
    ours = np.array(weighted_auc(truth, candidate, weights))
    theirs = np.array(weighted_auc(truth, other, weights))
    gain: Floats = np.nan_to_num(ours - theirs)
    return gain
