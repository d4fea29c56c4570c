"""Rows that a second tree engine must answer as LightGBM does, bit for bit, before it may answer for it.

Two engines part where a value meets a threshold, so half of the values are a threshold of the model itself or
one of its two neighbours; the others are categories, and what LightGBM treats in ways of its own: missing
values, zeros, infinities, numbers that are no category.
"""

import math
import random
from collections.abc import Mapping, Sequence

__all__ = ["replay_rows"]

_PECULIAR = (
    math.nan, math.nan, 0.0, -0.0, 1e-36, -1e-36, 1e-35, 5e-324, 1e300, -1e300, math.inf, -math.inf,
    -1.0, 0.5, 1.0, 2.0, 31.0, 32.0, 2.0**31, 2.0**63,
)  # fmt: skip
_MOST_CATEGORY = 400
_SHARE_OF_THRESHOLDS = 0.5


def replay_rows(text: bytes, *, features: int, rows: int) -> list[list[float]]:
    """Encoded rows [rows][features] for a model text that `check_model` has passed, always the same ones."""
    thresholds = _thresholds(text, features)
    rng = random.Random(len(text))  # noqa: S311  (no secret: the same rows at every load)
    return [[_value(rng, known) for known in thresholds] for _ in range(rows)]


def _value(rng: random.Random, thresholds: Sequence[float]) -> float:
    if thresholds and rng.random() < _SHARE_OF_THRESHOLDS:
        at = rng.choice(thresholds)
        return rng.choice((at, at, math.nextafter(at, math.inf), math.nextafter(at, -math.inf)))
    return rng.choice((float(rng.randrange(_MOST_CATEGORY)), rng.choice(_PECULIAR), rng.gauss(0, 100)))


def _thresholds(text: bytes, features: int) -> list[list[float]]:
    """The numbers that each feature is compared with."""
    found: list[list[float]] = [[] for _ in range(features)]
    tree: dict[str, str] = {}
    for line in text.decode(errors="replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals and name in {"split_feature", "threshold"}:
            tree[name] = value
        elif name == "decision_type":
            _add(tree | {name: value}, found)
    return found


def _add(tree: Mapping[str, str], found: list[list[float]]) -> None:
    parts = (tree[name].split() for name in ("split_feature", "threshold", "decision_type"))
    for feature, threshold, decision in zip(*parts, strict=True):
        if not int(decision) & 1:  # a categorical split's threshold is the number of a set
            found[int(feature)].append(float(threshold))
