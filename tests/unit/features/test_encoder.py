"""Vectors to a model's numbers: the same for training, golden predictions and serving."""

import math

import pytest
from everloop_features import Encoder, encode, learn_categories

TYPES = ("category", "number", "boolean")
MANIFEST = [
    {"name": "origin", "type": "category", "categories": ["EWR", "JFK"]},
    {"name": "wind", "type": "number"},
    {"name": "windy", "type": "boolean"},
]


def same(left: list[float], right: list[float]) -> bool:
    return all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["JFK", 3.5, True], [1.0, 3.5, 1.0]),
        (["EWR", 0, False], [0.0, 0.0, 0.0]),
        ([None, None, None], [math.nan] * 3),
        (["LGA", 1.0, True], [math.nan, 1.0, 1.0]),
    ],
)
def test_row(values: list, expected: list[float]) -> None:
    """An unknown category is a missing one; guessing a number for it would be another category."""
    row = Encoder(MANIFEST).row(values)
    assert same(row, expected)
    assert all(type(number) is float for number in row)
    assert same(list(encode(values, TYPES, [["EWR", "JFK"], None, None])), expected)


def test_matrix_is_row_by_row() -> None:
    """The trainer reshapes it without a copy."""
    assert list(Encoder(MANIFEST).matrix([["EWR", 1.0, True], ["JFK", 2.0, False]])) == [0, 1, 1, 1, 2, 0]


def test_a_vector_of_another_length_is_refused() -> None:
    """A vector of another pipeline version must not be read as one of this model."""
    with pytest.raises(ValueError, match="argument"):
        Encoder(MANIFEST).row(["EWR", 1.0])


def test_categories_are_learned_sorted() -> None:
    """The order must not depend on the order of the rows: it is part of the model's bytes."""
    rows = [["JFK", 1.0, None], [None, 2.0, True], ["EWR", None, False], ["JFK", 0.0, True]]
    assert (
        learn_categories(rows, TYPES) == [["EWR", "JFK"], None, None] == learn_categories(rows[::-1], TYPES)
    )
