"""The evidence by which the registry judges a model: metrics on the newest rows beside champion and prior."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from everloop_schemas.events import MetricEvidence, SliceEvidence
from numpy.typing import NDArray

from everloop_trainer.domain.bootstrap import Blocks, win_share
from everloop_trainer.domain.dataset import Columns
from everloop_trainer.domain.metrics import METRICS, ROW_LOSSES, Task, score

__all__ = ["MAXIMUM_SLICES", "Contest", "evaluate"]

MAXIMUM_SLICES = 12
"""A category feature with more values on the test rows is not sliced."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """What each contender says about the same test rows; each array is [n]."""

    truth: Floats
    candidate: Floats
    champion: Floats | None
    prior: Floats

    def take(self, rows: NDArray[np.int64]) -> "Contest":
        """The same contest on these rows."""
        champion = None if self.champion is None else self.champion[rows]
        return Contest(self.truth[rows], self.candidate[rows], champion, self.prior[rows])


def evaluate(
    task: Task, contest: Contest, columns: Columns, by: Blocks | None, seed: int
) -> list[MetricEvidence]:
    """Every metric of the task that these rows can give (an AUC needs both classes)."""
    return [
        _evidence(name, contest, columns, by, seed)
        for name in METRICS[task]
        if not np.isnan(score(name, contest.truth, contest.candidate))
    ]


def _evidence(name: str, contest: Contest, columns: Columns, by: Blocks | None, seed: int) -> MetricEvidence:
    truth, candidate, champion = contest.truth, contest.candidate, contest.champion
    return MetricEvidence(
        name=name,
        candidate=score(name, truth, candidate),
        champion=None if champion is None else score(name, truth, champion),
        prior=score(name, truth, contest.prior),
        rows=len(truth),
        better_than_champion_confidence=(
            None if champion is None else win_share(name, truth, candidate, champion, by=by, seed=seed)
        ),
        better_than_prior_confidence=win_share(name, truth, candidate, contest.prior, by=by, seed=seed),
        slices=list(_slices(name, contest, columns)) if name in ROW_LOSSES else [],
    )


def _slices(name: str, contest: Contest, columns: Columns) -> Iterator[SliceEvidence]:
    for column in columns:
        if not isinstance(column.values, list):
            continue
        present = sorted({value for value in column.values if value is not None})
        if len(present) <= MAXIMUM_SLICES:
            values = np.array(column.values, dtype=object)
            for value in present:
                yield _slice(name, contest.take(np.flatnonzero(values == value)), column.name, value)


def _slice(name: str, contest: Contest, feature: str, value: str) -> SliceEvidence:
    champion = contest.champion
    return SliceEvidence(
        feature=feature,
        value=value,
        rows=len(contest.truth),
        candidate=score(name, contest.truth, contest.candidate),
        champion=None if champion is None else score(name, contest.truth, champion),
        prior=score(name, contest.truth, contest.prior),
    )
