"""A training snapshot: the vectors and labels below a cut, joined, ordered and digested.

Everything here is held in columns. Times are microseconds since 1970 (UTC), offsets are the log's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Column",
    "Columns",
    "Dataset",
    "FeatureType",
    "Identity",
    "Labels",
    "Retractions",
    "Vectors",
    "assemble",
    "from_values",
    "select",
]

FeatureType = Literal["number", "category", "boolean"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One feature. Numbers and booleans (0/1) are float64 with NaN for null; categories are texts or None."""

    name: str
    type: FeatureType
    values: Floats | list[str | None]

    def take(self, rows: Ints) -> "Column":
        """The same feature for these rows, in this order."""
        if isinstance(self.values, list):
            values = self.values
            return Column(self.name, self.type, [values[i] for i in rows.tolist()])
        return Column(self.name, self.type, self.values[rows])


Columns = tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a dataset belongs to."""

    pipeline: str
    version: int
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Feature vectors of one pipeline version, in any order; each array is [n]."""

    ids: list[str]
    partition: Ints
    offset: Ints
    event_time: Ints
    known_at: Ints
    columns: Columns
    beside: Columns = ()
    """Category fields for slices: no part of the features, nor of the digest."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Label records, in any order; `value` is the label's expression, NaN where it gives null."""

    ids: list[str]
    partition: Ints
    offset: Ints
    event_time: Ints
    known_at: Ints
    value: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Retractions:
    """What withdraws the observations of its id that were known before it, in any order; arrays are [n]."""

    ids: list[str]
    partition: Ints
    offset: Ints
    known_at: Ints


NO_RETRACTIONS = Retractions([], *(np.empty(0, dtype=np.int64) for _ in range(3)))


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled rows, ordered by (event_time, partition, offset); each array is [n]."""

    identity: Identity
    ids: list[str]
    partition: Ints
    offset: Ints
    event_time: Ints
    label_event_time: Ints
    label_known_at: Ints
    target: Floats
    columns: Columns
    beside: Columns = ()

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.ids)

    def take(self, rows: Ints) -> "Dataset":
        """These rows, in this order."""
        picked = [self.ids[i] for i in rows.tolist()]
        return Dataset(
            self.identity,
            picked,
            self.partition[rows],
            self.offset[rows],
            self.event_time[rows],
            self.label_event_time[rows],
            self.label_known_at[rows],
            self.target[rows],
            tuple(column.take(rows) for column in self.columns),
            tuple(column.take(rows) for column in self.beside),
        )


def select(partition: Ints, offset: Ints, cut: Mapping[int, int]) -> Ints:
    """The indexes of the entries that lie below the cut; a partition that the cut does not name has none."""
    limits = np.zeros(max([*cut, *partition.tolist(), 0]) + 1, dtype=np.int64)
    for number, limit in cut.items():
        limits[number] = limit
    return np.flatnonzero(offset < limits[partition])


def assemble(
    identity: Identity,
    vectors: Vectors,
    labels: Labels,
    cut: Mapping[int, int],
    oldest: int,
    *,
    retractions: Retractions = NO_RETRACTIONS,
) -> Dataset:
    """Join by id what lies below the cut and happened at or after `oldest`.

    An observation that a retraction below the cut withdraws is no row. Of several labels of one id the latest
    known wins; where its value is null the row is left out. Of several observations of one id (from different
    sources, or published again after a retraction) the first one known that stands stays.
    """
    label_of = _last_known(labels, select(labels.partition, labels.offset, cut))
    rows = _standing(vectors, select(vectors.partition, vectors.offset, cut), retractions, cut)
    rows = _first_known(vectors, rows[vectors.event_time[rows] >= oldest])
    joined = np.array([label_of.get(vectors.ids[i], -1) for i in rows.tolist()], dtype=np.int64)
    rows, joined = rows[joined >= 0], joined[joined >= 0]
    valued = ~np.isnan(labels.value[joined])
    return _ordered(identity, vectors, labels, rows[valued], joined[valued])


def _standing(vectors: Vectors, rows: Ints, retractions: Retractions, cut: Mapping[int, int]) -> Ints:
    """The rows whose observation is not withdrawn: none of its id's retractions was known after it."""
    withdrawn = _last_known(retractions, select(retractions.partition, retractions.offset, cut))
    if not withdrawn:
        return rows
    stands = [
        (last := withdrawn.get(vectors.ids[i])) is None or _place(vectors, i) > _place(retractions, last)
        for i in rows.tolist()
    ]
    return rows[np.flatnonzero(stands)]


def _place(records: Vectors | Retractions, row: int) -> tuple[int, int, int]:
    """Where an entry stands in the order in which a pipeline's entries became known."""
    return int(records.known_at[row]), int(records.partition[row]), int(records.offset[row])


def _last_known(labels: Labels | Retractions, rows: Ints) -> dict[str, int]:
    order = _by_known(labels, rows)
    return {labels.ids[i]: i for i in order.tolist()}


def _first_known(vectors: Vectors, rows: Ints) -> Ints:
    first: dict[str, int] = {}
    for i in _by_known(vectors, rows).tolist():
        first.setdefault(vectors.ids[i], i)
    return np.fromiter(first.values(), dtype=np.int64, count=len(first))


def _by_known(records: Labels | Retractions | Vectors, rows: Ints) -> Ints:
    keys = (records.offset[rows], records.partition[rows], records.known_at[rows])
    return rows[np.lexsort(keys)]


def _ordered(identity: Identity, vectors: Vectors, labels: Labels, rows: Ints, joined: Ints) -> Dataset:
    order = np.lexsort((vectors.offset[rows], vectors.partition[rows], vectors.event_time[rows]))
    rows, joined = rows[order], joined[order]
    return Dataset(
        identity,
        [vectors.ids[i] for i in rows.tolist()],
        vectors.partition[rows],
        vectors.offset[rows],
        vectors.event_time[rows],
        labels.event_time[joined],
        labels.known_at[joined],
        labels.value[joined],
        tuple(column.take(rows) for column in vectors.columns),
        tuple(column.take(rows) for column in vectors.beside),
    )


def from_values(
    names: Sequence[str], types: Sequence[FeatureType], rows: Sequence[Sequence[object]]
) -> Columns:
    """Turn vectors as JSON values, row by row, into columns."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return tuple(_column(n, t, values) for n, t, values in zip(names, types, columns, strict=True))


def _column(name: str, kind: FeatureType, values: Sequence[object]) -> Column:
    if kind == "category":
        return Column(name, kind, [None if v is None else str(v) for v in values])
    return Column(name, kind, np.array([np.nan if v is None else v for v in values], dtype=np.float64))
