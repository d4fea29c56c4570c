"""What an earlier model has trained on."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Dataset, Labels, Vectors, select

__all__ = ["seen_rows"]


def seen_rows(
    dataset: Dataset, vectors: Vectors, labels: Labels, cut: Mapping[int, int]
) -> NDArray[np.bool_]:
    """The rows [n] whose observation and a label lie below the cut of the earlier model.

    They go by id: an observation that was sent again, or a label that was revised, is not new to it. A row
    that it left out, for its age or for a label without value, counts as seen: better one row too few judges.
    """
    return _known(dataset, vectors, cut) & _known(dataset, labels, cut)


def _known(dataset: Dataset, records: Vectors | Labels, cut: Mapping[int, int]) -> NDArray[np.bool_]:
    """The rows whose id stands among these records below the cut."""
    below = {records.ids[i] for i in select(records.partition, records.offset, cut).tolist()}
    return np.fromiter((i in below for i in dataset.ids), dtype=bool, count=dataset.rows)
