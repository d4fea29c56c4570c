"""Drift on whole days: quiet on noise, on storms and on odd columns; speaks when the world has moved."""

import numpy as np
import pytest
from everloop_monitor.domain import bins as binning
from everloop_monitor.domain.bins import Bins, Counts, Kind
from everloop_monitor.domain.drift import feature_drift, loss_drift, shiryaev_roberts
from everloop_monitor.domain.sketch import add, sketch

ROWS = 300


def freeze(kind: Kind, values: list) -> Bins:
    return binning.freeze(kind, sketch(values))


def count(bins: Bins, values: list) -> Counts:
    return binning.count(bins, sketch(values))


def days(
    rng: np.random.Generator, number: int, *, shift: float = 0.0, spread: float = 0.3
) -> list[np.ndarray]:
    """Values of successive days; each day has a level of its own, so rows within a day are alike."""
    return [rng.normal(rng.normal(shift, spread), 1.0, ROWS) for _ in range(number)]


def compared(reference: list[np.ndarray], current: list[np.ndarray]):
    bins = freeze("number", list(np.concatenate(reference)))
    return (
        {"x": np.array([count(bins, day) for day in reference])},
        {"x": np.array([count(bins, day) for day in current])},
    )


def alarms(seed: int, *, shift: float) -> bool:
    rng = np.random.default_rng(seed)
    reference, current = compared(days(rng, 20), days(rng, 30, shift=shift))
    drift = feature_drift(reference, current, false_alarms_per_100_days=1)
    assert drift is not None
    return drift.detected


def test_days_that_differ_as_they_always_did_raise_no_alarm() -> None:
    """Autocorrelation within a day must not retrain the model every week."""
    false = sum(alarms(seed, shift=0.0) for seed in range(60))
    assert false <= 0.3 * 60  # one in a hundred days, seen on the last of thirty


def test_a_lasting_shift_is_found() -> None:
    """A model must not decay in silence."""
    assert sum(alarms(seed, shift=1.2) for seed in range(20)) >= 18


def test_evidence_names_the_feature_that_moved() -> None:
    """An engineer on call needs to know where to look."""
    rng = np.random.default_rng(5)
    moved = compared(days(rng, 20), days(rng, 20, shift=2.0))
    still = compared(days(rng, 20), days(rng, 20))
    drift = feature_drift(
        {"still": still[0]["x"], "moved": moved[0]["x"]},
        {"still": still[1]["x"], "moved": moved[1]["x"]},
        false_alarms_per_100_days=1,
    )
    assert drift is not None
    assert drift.detected
    assert drift.signals[0].feature == "moved"


@pytest.mark.parametrize("values", [[None] * 50, [3.0] * 50, [], [float("nan")] * 50])
def test_constant_and_empty_columns_stay_silent(values: list[float | None]) -> None:
    """A column without information must neither crash the monitor nor raise an alarm."""
    bins = freeze("number", values)
    counts = {"x": np.array([count(bins, values)] * 20)}
    drift = feature_drift(counts, counts, false_alarms_per_100_days=1)
    assert drift is not None
    assert not drift.detected


def test_a_column_that_goes_missing_is_found() -> None:
    """A broken sensor looks like nothing at all."""
    rng = np.random.default_rng(2)
    reference = days(rng, 20)
    current = [np.where(rng.random(ROWS) < 0.4, np.nan, day) for day in days(rng, 25)]
    drift = feature_drift(*compared(reference, current), false_alarms_per_100_days=1)
    assert drift is not None
    assert drift.detected
    assert drift.signals[0].value == next(s.value for s in drift.signals if s.statistic == "missing")


def test_new_categories_are_counted_apart() -> None:
    """A new carrier must show, though no bin was made for it."""
    bins = freeze("category", ["a", "b", "a", None])
    assert count(bins, ["a", "z", "y", None]).tolist() == [1, 0, 2, 1]


def test_too_few_days_say_nothing() -> None:
    """Three days of reference know nothing of a week."""
    rng = np.random.default_rng(1)
    assert feature_drift(*compared(days(rng, 3), days(rng, 5)), false_alarms_per_100_days=1) is None
    assert loss_drift(np.ones(3), np.ones(2), false_alarms_per_100_days=1) is None


def test_a_lasting_rise_of_the_loss_is_found_and_a_single_storm_is_not() -> None:
    """One bad day is weather; ten are a decayed model."""
    rng = np.random.default_rng(3)
    reference = np.exp(rng.normal(-0.7, 0.1, 14))
    storm = np.exp(rng.normal(-0.7, 0.1, 12))
    storm[4] = 3.0
    risen = np.exp(rng.normal(-0.3, 0.1, 12))
    quiet = loss_drift(reference, storm, false_alarms_per_100_days=1)
    loud = loss_drift(reference, risen, false_alarms_per_100_days=1)
    assert quiet is not None
    assert loud is not None
    assert not quiet.detected
    assert loud.detected


def test_a_falling_loss_is_good_news() -> None:
    """A model that got better must not be retrained for it."""
    rng = np.random.default_rng(4)
    better = loss_drift(
        np.exp(rng.normal(-0.7, 0.1, 14)), np.exp(rng.normal(-1.5, 0.1, 20)), false_alarms_per_100_days=1
    )
    assert better is not None
    assert not better.detected


def test_average_run_length_is_at_least_the_threshold() -> None:
    """The declared rate of false alarms is a promise."""
    rng = np.random.default_rng(0)
    lengths = [_first(shiryaev_roberts(list(rng.random(400))), 100.0) for _ in range(300)]
    assert np.mean(lengths) >= 100


def _first(values: list[float], limit: float) -> int:
    return next((day for day, value in enumerate(values) if value >= limit), len(values))


def test_a_day_sketched_in_parts_is_the_day() -> None:
    """Batches end where they like; the day's figures must not depend on that."""
    values = [1.23456, 1.23444, 7, None, "x", True, float("nan"), -0.5] * 3
    assert add([sketch(values[:5]), sketch(values[5:])]) == sketch(values)


def test_a_sketch_stays_small() -> None:
    """A column of ids must not fill the database."""
    assert len(sketch([f"id-{n}" for n in range(50_000)])) <= 2000
    assert len(sketch([n / 7 for n in range(50_000)])) <= 2000
