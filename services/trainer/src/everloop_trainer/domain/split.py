"""Which rows train the evaluation model and which rows judge it: always older against newer."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Dataset

__all__ = ["MINIMUM_COMPARED_ROWS", "Split", "split"]

MINIMUM_COMPARED_ROWS = 200
"""Fewer rows that the champion has not seen say too little for a comparison."""

Ints = NDArray[np.int64]
Embargo = Literal["known_at", "event_time"]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row indexes of one ordered dataset. `comparable`: the champion has trained on none of the test rows."""

    train: Ints
    test: Ints
    comparable: bool
    embargo: Embargo


def split(dataset: Dataset, test_share: float, champion_saw: int | None, minimum_rows: int) -> Split:
    """Take the newest `test_share` as test rows and what was known before them as training rows.

    A champion may only be judged on rows newer than all it trained on (`champion_saw`, in µs): the test
    begins after them where at least 200 rows remain; otherwise there is no comparison, and a gate says so.
    """
    start = dataset.rows - max(1, round(dataset.rows * test_share))
    unseen = (
        0 if champion_saw is None else int(np.searchsorted(dataset.event_time, champion_saw, side="right"))
    )
    comparable = champion_saw is not None and dataset.rows - unseen >= MINIMUM_COMPARED_ROWS
    if comparable:
        start = max(start, unseen)
    train, embargo = _known_before(dataset, start, minimum_rows)
    return Split(train, np.arange(start, dataset.rows), comparable, embargo)


def _known_before(dataset: Dataset, start: int, minimum_rows: int) -> tuple[Ints, Embargo]:
    """Leave out training rows whose outcome was not known when the test period began.

    Where history was loaded at once, every label became known after it all; then their event time decides.
    """
    begins = dataset.event_time[start]
    known = np.flatnonzero(dataset.label_known_at[:start] <= begins)
    if len(known) >= min(minimum_rows, start):
        return known, "known_at"
    return np.flatnonzero(dataset.label_event_time[:start] <= begins), "event_time"
