"""Finding log entries by their place: partition and offset."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["find"]

Ints = NDArray[np.int64]


def find(wanted: tuple[Ints, Ints], among: tuple[Ints, Ints]) -> Ints:
    """For each wanted (partition, offset) its index among the others, -1 for none; arrays are [n]."""
    keys, sought = _keys(*among), _keys(*wanted)
    order = np.argsort(keys)
    if len(order) == 0:
        return np.full(len(sought), -1)
    at = np.minimum(np.searchsorted(keys, sought, sorter=order), len(order) - 1)
    return np.where(keys[order[at]] == sought, order[at], -1)


def _keys(partition: Ints, offset: Ints) -> Ints:
    """One number a place: there are at most 1024 partitions."""
    return (partition << 48) | offset
