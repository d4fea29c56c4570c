"""Histograms of one feature, a row a day, on bins that are frozen once from the reference days."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from everloop_monitor.domain.sketch import Sketch

__all__ = ["Bins", "Counts", "Kind", "count", "freeze"]

Counts = NDArray[np.int64]
"""Shape [bins] for a day, [days, bins] for several. The last bin is the missing values."""
Kind = Literal["number", "category", "boolean"]

QUANTILE_BINS: Final = 16
TOP_CATEGORIES: Final = 30


@dataclass(frozen=True, slots=True)
class Bins:
    """Where values are counted.

    `number`: bin i holds values in (edges[i-1], edges[i]], the first and the last are open. Otherwise: one
    bin for each listed value, then one for all others. Both end with a bin for missing values.
    """

    kind: Kind
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many bins there are, the one for missing values included."""
        return len(self.edges) + 2 if self.kind == "number" else len(self.categories) + 2


def freeze(kind: Kind, reference: Sketch) -> Bins:
    """Bins of the reference's values: quantiles of numbers, the most frequent categories.

    A constant or empty column has one edge or none; it is counted all the same.
    """
    if kind == "number":
        return Bins(kind, edges=_quantiles(reference))
    counted = {str(value): times for value, times in reference.items() if value is not None}
    top = sorted(counted, key=lambda text: (-counted[text], text))[:TOP_CATEGORIES]
    return Bins(kind, categories=tuple(sorted(top)))


def _quantiles(reference: Sketch) -> tuple[float, ...]:
    numbers, times = _numbers(reference)
    if not len(numbers):
        return ()
    order = np.argsort(numbers)
    reached = np.cumsum(times[order])
    shares = np.arange(1, QUANTILE_BINS) / QUANTILE_BINS * reached[-1]
    return tuple(float(edge) for edge in np.unique(numbers[order][np.searchsorted(reached, shares)]))


def count(bins: Bins, day: Sketch) -> Counts:
    """How many values of one day fall into each bin."""
    return _count_numbers(bins, day) if bins.kind == "number" else _count_categories(bins, day)


def _count_numbers(bins: Bins, day: Sketch) -> Counts:
    numbers, times = _numbers(day)
    counts = np.zeros(bins.size, dtype=np.int64)
    np.add.at(counts, np.searchsorted(bins.edges, numbers, side="left"), times)
    counts[-1] = sum(day.values()) - counts[:-1].sum()
    return counts


def _numbers(day: Sketch) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    held = [(v, n) for v, n in day.items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    values = np.array([value for value, _ in held], dtype=np.float64)
    return values, np.array([times for _, times in held], dtype=np.int64)


def _count_categories(bins: Bins, day: Sketch) -> Counts:
    place = {text: index for index, text in enumerate(bins.categories)}
    counts = np.zeros(bins.size, dtype=np.int64)
    for value, times in day.items():
        counts[-1 if value is None else place.get(str(value), bins.size - 2)] += times
    return counts
