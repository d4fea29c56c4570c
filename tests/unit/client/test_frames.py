"""Rows of entities and moments, as people hand them in."""

from datetime import UTC, datetime

import pandas as pd
import pytest
from everloop.errors import UsageError
from everloop.history.frames import as_frame, frame_of, questions_of
from everloop_features import compile as compile_features
from everloop_features import microseconds
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load

PIPELINE = load("""
pipeline: p
partition_by: [shop]
observation:
  event_time: sold_at
  fields:
    shop: {type: category}
    size: {type: number, nullable: true}
    due: {type: timestamp, nullable: true}
label: {type: binary, fields: {gain: {type: number}}, value: {won: gain > 0}}
features: {big: size > 1, size: size, shop: lower(shop)}
""")
COMPILED = compile_features(PIPELINE)
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


def test_a_row_asks_in_its_own_partition_with_what_it_gives() -> None:
    (question,) = questions_of(PIPELINE, as_frame([{"shop": "x", "at": "2020-01-01T12:00:00Z"}]), None)
    assert question.fields == {"shop": "x", "size": None, "due": None}
    assert question.at_us == question.event_time_us == microseconds(NOON)
    assert question.partition == partition_of(key_bytes(["x"]), 4)


def test_a_frame_of_pandas_is_read_as_json_would_be() -> None:
    """NaN, numpy's numbers and Timestamps are what frames hold; the evaluator knows JSON."""
    frame = pd.DataFrame(
        {"shop": ["x"], "size": [float("nan")], "due": [pd.Timestamp(NOON)], "sold_at": [pd.Timestamp(NOON)]}
    )
    (question,) = questions_of(PIPELINE, frame, "2020-01-02T00:00:00+01:00")
    assert question.fields == {"shop": "x", "size": None, "due": "2020-01-01T12:00:00+00:00"}
    assert question.event_time_us == microseconds(NOON)


@pytest.mark.parametrize(
    ("rows", "at", "told"),
    [
        ([{"shop": "x", "siez": 1}], "2020-01-01T12:00:00Z", "siez"),
        ([{"size": 1}], "2020-01-01T12:00:00Z", "shop"),
        ([{"shop": "x"}], None, "at"),
        ([{"shop": "x"}], "2020-01-01T12:00:00", "row 0: at"),
        ([{"shop": "x", "at": "2020-01-01T12:00:00Z"}, {"shop": "x", "at": None}], None, "row 1: at"),
        ([{"shop": "x", "sold_at": "noon"}], "2020-01-01T12:00:00Z", "row 0: sold_at"),
    ],
)
def test_a_mistake_is_named_with_its_row_and_column(rows, at, told) -> None:
    """A naive time silently read as UTC would shift every window."""
    with pytest.raises(UsageError, match=told):
        questions_of(PIPELINE, as_frame(rows), at)


def test_the_answer_keeps_order_and_index_and_types() -> None:
    """Whoever joins it back by index must not get another row's features."""
    asked = pd.DataFrame({"shop": ["X", "Y"], "size": [2.0, None]}, index=[7, 7])
    found = frame_of(COMPILED, asked, NOON, [[True, "x", 2.0], [None, "y", None]])
    assert list(found.columns) == ["at", "big", "shop", "size"]
    assert list(found.index) == [7, 7]
    assert found["shop"].tolist() == ["x", "y"]
    assert (found["big"].dtype, found["size"].dtype) == ("boolean", "float64")
    assert found["big"].isna().tolist() == [False, True]


def test_no_row_gives_an_empty_frame_with_the_columns() -> None:
    found = frame_of(COMPILED, pd.DataFrame({"shop": []}), NOON, [])
    assert list(found.columns) == ["at", "big", "shop", "size"]
