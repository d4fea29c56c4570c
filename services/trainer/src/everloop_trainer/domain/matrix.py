"""Features as LightGBM sees them: float64 columns, categories as indexes into a sorted list of names.

The same rule as `everloop_features.encoding.Encoder`, by columns; a test holds the two against each other.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Column, Columns

__all__ = ["Categories", "categories_of", "encode"]

Categories = Mapping[str, list[str]]
"""By feature: the values seen in training, sorted; the index is the code."""


def categories_of(columns: Columns) -> Categories:
    """What these rows teach about each category feature."""
    return {
        column.name: sorted({value for value in column.values if value is not None})
        for column in columns
        if isinstance(column.values, list)
    }


def encode(columns: Columns, categories: Categories) -> NDArray[np.float64]:
    """The matrix [rows, features]; a category that training has not seen is missing, as null is."""
    return np.column_stack([_encoded(column, categories) for column in columns])


def _encoded(column: Column, categories: Categories) -> NDArray[np.float64]:
    if not isinstance(column.values, list):
        return column.values
    codes: dict[str | None, float] = {name: float(i) for i, name in enumerate(categories[column.name])}
    return np.array([codes.get(value, np.nan) for value in column.values], dtype=np.float64)
