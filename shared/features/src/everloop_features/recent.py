"""The newest records of a key, by event time; records of one time stay in the order of the log."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from everloop_features.nodes import Group

__all__ = ["remember"]


def remember(group: Group, first: int, records: int, moment: int, values: Sequence[Any]) -> None:
    """Add a record to the block of lists that begins at `first`, which holds `records` at most."""
    times = group[first]
    at = len(times) if not times or moment >= times[-1] else bisect_right(times, moment)
    if not at and len(times) >= records:
        return
    block = group[first : first + 1 + len(values)]
    for column, value in zip(block, (moment, *values), strict=True):
        column.insert(at, value)
    if len(times) > records:
        for column in block:
            del column[0]
