"""Entries of a pipeline's log in columns, and what a dataset takes from their fields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Column, Columns, Labels, Retractions, Vectors
from everloop_trainer.domain.positions import find
from everloop_trainer.domain.retracted import RETRACTED

__all__ = ["Records", "fields_beside", "labels_of", "retractions_among"]

Ints = NDArray[np.int64]
Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Observations or labels, in any order; each array is [n], `fields` holds one JSON text a record."""

    ids: list[str]
    partition: Ints
    offset: Ints
    event_time: Ints
    known_at: Ints
    fields: list[str]


def retractions_among(labels: Records) -> tuple[Retractions, Records]:
    """What stands among the labels and withdraws observations; and the labels alone."""
    withdrawing = np.array([text == RETRACTED for text in labels.fields], dtype=bool)
    taken = _take(labels, np.flatnonzero(withdrawing))
    found = Retractions(taken.ids, taken.partition, taken.offset, taken.known_at)
    return found, _take(labels, np.flatnonzero(~withdrawing))


def _take(records: Records, rows: Ints) -> Records:
    return Records(
        [records.ids[i] for i in rows.tolist()],
        records.partition[rows],
        records.offset[rows],
        records.event_time[rows],
        records.known_at[rows],
        [records.fields[i] for i in rows.tolist()],
    )


def labels_of(
    records: Records, value: Callable[[Fields], float | None], read: Callable[[str], Fields]
) -> Labels:
    """The labels' values by the pipeline's expression; NaN where it gives null."""
    values = [value(read(text)) for text in records.fields]
    return Labels(
        records.ids,
        records.partition,
        records.offset,
        records.event_time,
        records.known_at,
        np.array([np.nan if v is None else v for v in values], dtype=np.float64),
    )


def fields_beside(
    vectors: Vectors, observations: Records, names: Sequence[str], read: Callable[[str], Fields]
) -> Columns:
    """Category fields of each vector's observation, by its place in the log; for slices, not training."""
    if not names:
        return ()
    found = find((vectors.partition, vectors.offset), (observations.partition, observations.offset))
    values = [None if i < 0 else read(observations.fields[i]) for i in found.tolist()]
    return tuple(
        Column(name, "category", [None if v is None or v.get(name) is None else str(v[name]) for v in values])
        for name in names
    )
