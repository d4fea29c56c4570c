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
    observed = _ids(vectors, cut)
    labelled = _ids(labels, cut)
    return np.array([i in observed and i in labelled for i in dataset.ids], dtype=bool)


def _ids(records: Vectors | Labels, cut: Mapping[int, int]) -> set[str]:
    return {records.ids[i] for i in select(records.partition, records.offset, cut).tolist()}
