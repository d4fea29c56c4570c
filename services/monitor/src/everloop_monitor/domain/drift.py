"""Has the world moved? Judged on whole days, so that the rhythm within a day cannot raise an alarm.

Each day is compared with the reference days as these compare with one another: its distance to the pooled
reference is ranked among their leave-one-out distances, which carries the column's own day-to-day variance
(its design effect) into the test. The conformal p-values are bets in a Shiryaev-Roberts procedure; the
average over all columns and statistics is one too, so one threshold holds for all of them together.

Sources: Vovk, Nouretdinov, Gammerman, "Testing exchangeability on-line" (ICML 2003), for betting on conformal
p-values; Shiryaev (1963) and Roberts (1966) for the procedure, whose average run length to a false alarm is
at least its threshold.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from everloop_monitor.domain.bins import Counts

__all__ = ["Drift", "Signal", "feature_drift", "loss_drift", "shiryaev_roberts", "threshold"]

Days = NDArray[np.float64]
"""One figure a day, shape [days]."""

BETS: Final = (0.2, 0.4, 0.6)
"""Exponents of the mixed power bets: e(p) = mean of x * p**(x - 1), whose mean over uniform p is one."""
SMALLEST_P: Final = 2e-3
"""No single day may decide: a storm is not a change of climate."""
MINIMUM_REFERENCE_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Signal:
    """What one statistic of one feature says; `value` is its Shiryaev-Roberts statistic on the newest day."""

    feature: str
    statistic: str
    value: float


@dataclass(frozen=True, slots=True)
class Drift:
    """The state of the test on the newest day: drift when `value` has reached `threshold`."""

    value: float
    threshold: float
    signals: tuple[Signal, ...]
    reference_days: int
    current_days: int

    @property
    def detected(self) -> bool:
        """Whether an alarm is due."""
        return self.value >= self.threshold


def threshold(false_alarms_per_100_days: float) -> float:
    """The average run length, in days, that the declared rate of false alarms allows."""
    return 100.0 / false_alarms_per_100_days


def feature_drift(
    reference: Mapping[str, Counts], current: Mapping[str, Counts], *, false_alarms_per_100_days: float
) -> Drift | None:
    """Compare the current days with the reference days, feature by feature.

    Both map a feature to counts of shape [days, bins], the newest day last. None while days are too few.
    """
    reference_days = min((len(days) for days in reference.values()), default=0)
    current_days = min((len(days) for days in current.values()), default=0)
    if reference_days < MINIMUM_REFERENCE_DAYS or not current_days:
        return None
    signals = [
        Signal(feature, statistic, shiryaev_roberts(p_values)[-1])
        for feature, days in reference.items()
        for statistic, p_values in _p_values(days, current[feature]).items()
    ]
    return _verdict(signals, reference_days, current_days, threshold(false_alarms_per_100_days))


def loss_drift(reference: Days, current: Days, *, false_alarms_per_100_days: float) -> Drift | None:
    """Has the mean loss of whole days risen above that of the reference days? A fall raises no alarm.

    The p-value is that of a new observation under a normal law of the logarithm, since few days are at hand
    to rank among. None while there are too few days.
    """
    if len(reference) < MINIMUM_REFERENCE_DAYS or not len(current):
        return None
    value = shiryaev_roberts(_prediction_p_values(np.log(reference), np.log(current)))[-1]
    limit = threshold(false_alarms_per_100_days)
    return _verdict([Signal("loss", "daily mean", value)], len(reference), len(current), limit)


def shiryaev_roberts(p_values: Sequence[float]) -> list[float]:
    """The statistic after each day: R = (1 + R) * e(p), from R = 0."""
    values, current = [], 0.0
    for p in p_values:
        kept = max(p, SMALLEST_P)
        current = (1.0 + current) * sum(bet * kept ** (bet - 1) for bet in BETS) / len(BETS)
        values.append(current)
    return values


def _verdict(signals: list[Signal], reference_days: int, current_days: int, limit: float) -> Drift:
    ordered = tuple(sorted(signals, key=lambda signal: (-signal.value, signal.feature, signal.statistic)))
    value = math.fsum(signal.value for signal in signals) / max(len(signals), 1)
    return Drift(value, limit, ordered, reference_days, current_days)


def _p_values(reference: Counts, current: Counts) -> dict[str, list[float]]:
    """By statistic, one p-value a current day."""
    pooled = reference.sum(axis=0)
    others = pooled - reference
    scores = {
        "jensen-shannon": (_jensen_shannon(reference, others), _jensen_shannon(current, pooled)),
        "location": (abs(_location(reference, others)), abs(_location(current, pooled))),
        "missing": (
            abs(_missing(reference) - _missing(others)),
            abs(_missing(current) - _missing(pooled)),
        ),
    }
    return {name: _conformal(known, new) for name, (known, new) in scores.items()}


def _conformal(known: Days, scores: Days) -> list[float]:
    """The share of reference scores at least as high; ties by half, so a constant column stays silent."""
    above = (known > scores[:, None]).sum(axis=1)
    ties = (known == scores[:, None]).sum(axis=1)
    values: list[float] = ((above + np.where(ties > 0, (ties + 1) / 2, 1.0)) / (len(known) + 1)).tolist()
    return values


def _prediction_p_values(reference: Days, current: Days) -> list[float]:
    size = len(reference)
    spread = max(float(np.std(reference, ddof=1)), 1e-9) * math.sqrt(1 + 1 / size)
    # Student's t, upper tail; scipy.stats has it too, and takes a second and 60 MB to import
    return [float(stdtr(size - 1, -(value - reference.mean()) / spread)) for value in current]


def _jensen_shannon(one: Counts, other: Counts) -> Days:
    """The divergence in nats of each day (a row), between 0 and log 2; 0 where either side is empty."""
    p, q = _shares(one), _shares(other)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    held: Days = np.where(_both_held(one, other), divergence, 0.0)
    return held


def _relative_entropy(p: Days, q: Days) -> Days:
    terms = np.divide(p, q, out=np.ones_like(q), where=p > 0)
    entropy: Days = np.sum(p * np.log(terms), axis=-1)
    return entropy


def _location(one: Counts, other: Counts) -> Days:
    """How far the mid-ranks of each day lie from the middle of `other`: P(one > other) - 1/2, ties by half.

    Categories stand in their sorted order: as good a fixed direction as any to see a steady move along.
    """
    one, other = one[..., :-1], other[..., :-1]
    q = _shares(other)
    below = np.cumsum(q, axis=-1) - q / 2
    moved: Days = np.where(_both_held(one, other), np.sum(_shares(one) * below, axis=-1) - 0.5, 0.0)
    return moved


def _missing(counts: Counts) -> Days:
    """The share of the last bin."""
    share: Days = _shares(counts)[..., -1]
    return share


def _shares(counts: Counts) -> Days:
    """Each row over its sum; zeros where that is zero."""
    totals = counts.sum(axis=-1, keepdims=True)
    shares: Days = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return shares


def _both_held(one: Counts, other: Counts) -> NDArray[np.bool_]:
    held: NDArray[np.bool_] = (one.sum(axis=-1) > 0) & (other.sum(axis=-1) > 0)
    return held
