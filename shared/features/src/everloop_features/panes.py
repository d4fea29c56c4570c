"""The slow path of a pane update: a new pane, or a record that comes late."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from everloop_features.nodes import RETAINED_PANES, Group

__all__ = ["slot"]


def slot(group: Group, first: int, pane: int, zeros: Sequence[Any]) -> int | None:
    """The index of `pane` in the block of lists that begins at `first`, made if it is not there.

    Panes stay in ascending order. None for a pane that lies `RETAINED_PANES` or more behind the newest.
    """
    panes = group[first]
    if not panes or pane > panes[-1]:
        _append(group, first, pane, zeros)
        return -1
    if pane <= panes[-1] - RETAINED_PANES:
        return None
    index = bisect_left(panes, pane)
    if panes[index] != pane:
        panes.insert(index, pane)
        for column, zero in enumerate(zeros, first + 1):
            group[column].insert(index, zero)
    return index


def _append(group: Group, first: int, pane: int, zeros: Sequence[Any]) -> None:
    panes, oldest = group[first], pane - RETAINED_PANES + 1
    panes.append(pane)
    for column, zero in enumerate(zeros, first + 1):
        group[column].append(zero)
    if panes[0] < oldest:
        gone = bisect_left(panes, oldest)
        for column in range(first, first + 1 + len(zeros)):
            del group[column][:gone]
