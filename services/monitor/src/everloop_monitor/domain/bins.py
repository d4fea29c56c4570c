"""Histograms of one feature, a row a day, on bins that are frozen once from the reference days."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bins", "Counts", "Value", "count", "freeze"]

Value = bool | int | float | str | None
Counts = NDArray[np.int64]
"""Shape [bins] for a day, [days, bins] for several. The last bin is the missing values."""

QUANTILE_BINS = 16
TOP_CATEGORIES = 30


@dataclass(frozen=True, slots=True)
class Bins:
    """Where values are counted.

    `number`: bin i holds values in (edges[i-1], edges[i]], the first and the last are open. `category`: one
    bin for each listed value, then one for all others. Both end with a bin for missing values.
    """

    kind: Literal["number", "category"]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many bins there are, the one for missing values included."""
        return len(self.edges) + 2 if self.kind == "number" else len(self.categories) + 2


def freeze(kind: Literal["number", "category", "boolean"], values: Sequence[Value]) -> Bins:
    """Bins of the reference's values: quantiles of numbers, the most frequent categories.

    A constant or empty column has one edge or none; it is counted all the same.
    """
    present = [value for value in values if value is not None]
    if kind == "number":
        if not present:
            return Bins("number")
        shares = np.linspace(0, 1, QUANTILE_BINS + 1)[1:-1]
        edges = np.unique(np.quantile(np.asarray(present, dtype=np.float64), shares))
        return Bins("number", edges=tuple(float(edge) for edge in edges))
    counted = Counter(map(_text, present))
    top = sorted(counted, key=lambda text: (-counted[text], text))[:TOP_CATEGORIES]
    return Bins("category", categories=tuple(sorted(top)))


def count(bins: Bins, values: Iterable[Value]) -> Counts:
    """How many values fall into each bin."""
    return _count_numbers(bins, values) if bins.kind == "number" else _count_categories(bins, values)


def _count_numbers(bins: Bins, values: Iterable[Value]) -> Counts:
    every = list(values)
    present = np.asarray([value for value in every if value is not None], dtype=np.float64)
    finite = present[~np.isnan(present)]
    counts = np.bincount(np.searchsorted(bins.edges, finite, side="left"), minlength=bins.size)
    counts[-1] = len(every) - len(finite)
    return counts.astype(np.int64)


def _count_categories(bins: Bins, values: Iterable[Value]) -> Counts:
    place = {text: index for index, text in enumerate(bins.categories)}
    counts = np.zeros(bins.size, dtype=np.int64)
    for value, times in Counter(values).items():
        counts[-1 if value is None else place.get(_text(value), bins.size - 2)] += times
    return counts


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
