"""How good predictions are, per row or as a whole, with optional whole-number weights per row."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "ROW_LOSSES", "Task", "row_losses", "score", "weighted_auc"]

Task = Literal["binary", "number"]
Floats = NDArray[np.float64]

METRICS: dict[Task, tuple[str, ...]] = {"binary": ("log_loss", "brier", "auc"), "number": ("mae", "rmse")}
"""The first one is the task's main loss. Of them only a higher auc is better."""
ROW_LOSSES = frozenset({"log_loss", "brier", "mae", "rmse"})
"""Metrics that are a mean over rows (for rmse: its root)."""

_EDGE = 1e-15


def row_losses(name: str, truth: Floats, output: Floats) -> Floats:
    """The loss of each row [n]; probabilities are kept 1e-15 from 0 and 1; for rmse the squared error."""
    match name:
        case "log_loss":
            share = np.clip(output, _EDGE, 1 - _EDGE)
            return -(truth * np.log(share) + (1 - truth) * np.log1p(-share))
        case "brier" | "rmse":
            return (output - truth) ** 2
        case "mae":
            return np.abs(output - truth)
        case _:
            raise ValueError(f"{name} is no mean over rows")


def score(name: str, truth: Floats, output: Floats) -> float:
    """The metric over all rows; nan for an AUC without both classes."""
    if name == "auc":
        return weighted_auc(truth, output, np.ones((1, len(truth))))[0]
    mean = float(np.mean(row_losses(name, truth, output)))
    return float(np.sqrt(mean)) if name == "rmse" else mean


def weighted_auc(truth: Floats, output: Floats, weights: Floats) -> list[float]:
    """The AUC for each row of `weights` [m, n]; ties count half. nan where one class is missing."""
    order = np.argsort(output, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(output[order]) != 0])
    return [_auc(truth[order], row[order], first) for row in weights]


def _auc(truth: Floats, weight: Floats, first: NDArray[np.int64]) -> float:
    """Of (positive, negative) pairs the share in the right order; `first` begins each group of ties."""
    positive = np.add.reduceat(truth * weight, first)
    negative = np.add.reduceat((1 - truth) * weight, first)
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    return float((positive * (below + negative / 2)).sum() / pairs)
