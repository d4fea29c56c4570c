"""Vectors to numbers for a model: one encoder for training, golden predictions and serving."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from everloop_features.nodes import Value

__all__ = ["Encoder", "encode", "learn_categories"]

NAN = float("nan")


class Encoder:
    """Encodes vectors by a model manifest's `features`: `[{"name", "type", "categories"?}, …]`.

    A category becomes its position in `categories`; a boolean 0 or 1; null and unknown categories NaN.

    Example:
        >>> Encoder([{"name": "origin", "type": "category", "categories": ["EWR", "JFK"]}]).row(["JFK"])
        [1.0]
    """

    def __init__(self, features: Iterable[Mapping[str, Any]]) -> None:
        self.features = tuple(features)
        self._positions = [_positions(feature) for feature in self.features]

    def row(self, values: Sequence[Value]) -> list[float]:
        """One vector as floats, in the same order. Raises ValueError when its length is not the model's."""
        return [
            (NAN if value is None else float(value)) if known is None else known.get(value, NAN)
            for value, known in zip(values, self._positions, strict=True)
        ]

    def matrix(self, rows: Iterable[Sequence[Value]]) -> "array[float]":
        """Vectors as one flat array of doubles, row by row: reshape it to (rows, features)."""
        flat = array("d")
        for values in rows:
            flat.extend(self.row(values))
        return flat


def encode(
    values: Sequence[Value], types: Sequence[str], categories: Sequence[Sequence[str] | None]
) -> "array[float]":
    """One vector as doubles; `categories` are those of each category feature and None elsewhere."""
    features = zip(types, categories, strict=True)
    return array("d", Encoder({"type": kind, "categories": known} for kind, known in features).row(values))


def learn_categories(rows: Iterable[Sequence[Value]], types: Sequence[str]) -> list[list[str] | None]:
    """The sorted categories that the training rows hold, None for a feature of another type."""
    seen: list[set[str] | None] = [set() if kind == "category" else None for kind in types]
    for row in rows:
        for value, known in zip(row, seen, strict=True):
            if known is not None and isinstance(value, str):
                known.add(value)
    return [None if known is None else sorted(known) for known in seen]


def _positions(feature: Mapping[str, Any]) -> dict[Value, float] | None:
    if feature["type"] != "category":
        return None
    return {category: float(index) for index, category in enumerate(feature["categories"] or ())}
