"""Which rows train the evaluation model and which rows judge it: always older against newer."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.comparison import MINIMUM_COMPARED_ROWS
from everloop_trainer.domain.dataset import Dataset

__all__ = ["Split", "split", "split_by_time"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Embargo = Literal["known_at", "event_time"]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row indexes of one ordered dataset. `comparable`: the champion has trained on none of the test rows."""

    train: Ints
    test: Ints
    comparable: bool
    embargo: Embargo


def split(dataset: Dataset, test_share: float, seen: Bools | None, minimum_rows: int) -> Split:
    """Take the newest `test_share` as test rows and what was known before them as training rows.

    `seen` [n] marks the rows that the champion has trained on (None: there is no champion): none of them may
    judge. Where less than 200 of the newest rows are unseen, the newest 200 unseen ones judge, unless hardly
    a row is older than they are. Otherwise there is no comparison, and a gate says so.
    """
    start = _start(dataset, test_share)
    test = np.empty(0, np.int64) if seen is None else _newest_unseen(seen, start)
    comparable = len(test) >= MINIMUM_COMPARED_ROWS and test[0] >= min(minimum_rows, dataset.rows // 2)
    if not comparable:
        test = np.arange(start, dataset.rows)
    train, embargo = _known_before(dataset, int(test[0]), minimum_rows)
    return Split(train, test, comparable, embargo)


def split_by_time(dataset: Dataset, test_share: float, champion_saw: int, minimum_rows: int) -> Split:
    """Split as jobs do that were kept before they named the champion's cut; for their verification.

    The test begins after all that the champion trained on (`champion_saw`, in µs) where 200 rows remain.
    """
    start = _start(dataset, test_share)
    unseen = int(np.searchsorted(dataset.event_time, champion_saw, side="right"))
    comparable = dataset.rows - unseen >= MINIMUM_COMPARED_ROWS
    if comparable:
        start = max(start, unseen)
    train, embargo = _known_before(dataset, start, minimum_rows)
    return Split(train, np.arange(start, dataset.rows), comparable, embargo)


def _start(dataset: Dataset, test_share: float) -> int:
    return dataset.rows - max(1, round(dataset.rows * test_share))


def _newest_unseen(seen: Bools, start: int) -> Ints:
    """The unseen rows from `start` on; where they are too few, the newest ones wherever they lie."""
    unseen = np.flatnonzero(~seen)
    newest = unseen[unseen >= start]
    return newest if len(newest) >= MINIMUM_COMPARED_ROWS else unseen[-MINIMUM_COMPARED_ROWS:]


def _known_before(dataset: Dataset, start: int, minimum_rows: int) -> tuple[Ints, Embargo]:
    """Leave out training rows whose outcome was not known when the test period began.

    Where history was loaded at once, every label became known after it all; then their event time decides.
    """
    begins = dataset.event_time[start]
    known = np.flatnonzero(dataset.label_known_at[:start] <= begins)
    if len(known) >= min(minimum_rows, start):
        return known, "known_at"
    return np.flatnonzero(dataset.label_event_time[:start] <= begins), "event_time"
