"""What the data of a training was like, field by field: how each share behaves from window to window.

Windows and days are of event time, so that history that was loaded at once has a profile too.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from everloop_schemas.events import FieldProfile, MeasuredShare
from everloop_schemas.pipeline import FieldSpec
from everloop_schemas.shares import SharePattern, learn_share
from numpy.typing import NDArray

__all__ = ["Blocks", "blocks_of", "field_profiles", "late_share"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_DAY_US: Final = 86_400_000_000
_LOW, _HIGH = 0.01, 0.99
_MOST_TRACKED: Final = 10
"""Categories whose own shares are watched: the most frequent."""
_MOST_KNOWN: Final = 1000
"""Values of a category that a profile lists; a field with more has no invariant about unseen ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Rows [n] in windows and in days: the block of each row and the rows of each block."""

    window: Ints
    window_rows: list[int]
    day: Ints
    day_rows: list[int]

    def share(self, rows: Mask) -> MeasuredShare:
        """How the share of these rows behaves."""
        return MeasuredShare(
            window=_pattern(self.window, self.window_rows, rows), day=_pattern(self.day, self.day_rows, rows)
        )

    def share_of_new(self, codes: Ints) -> MeasuredShare:
        """The share of rows whose value (`codes` [n], -1 for none) was seen in no other block."""
        return MeasuredShare(
            window=_pattern(self.window, self.window_rows, _only_here(codes, self.window)),
            day=_pattern(self.day, self.day_rows, _only_here(codes, self.day)),
        )


def blocks_of(event_time: Ints, window_us: int) -> Blocks:
    """Cut rows by their event times [n], in µs."""
    window, window_rows = _numbered(event_time // window_us)
    day, day_rows = _numbered(event_time // _DAY_US)
    return Blocks(window, window_rows, day, day_rows)


def _numbered(keys: Ints) -> tuple[Ints, list[int]]:
    _, numbers, rows = np.unique(keys, return_inverse=True, return_counts=True)
    return numbers.astype(np.int64), rows.tolist()


def _pattern(block: Ints, rows: Sequence[int], mask: Mask) -> SharePattern:
    return learn_share(np.bincount(block[mask], minlength=len(rows)).tolist(), rows)


def _only_here(codes: Ints, block: Ints) -> Mask:
    pairs = np.unique(np.stack([codes, block]), axis=1)
    values, blocks = np.unique(pairs[0], return_counts=True)
    alone = values[(blocks == 1) & (values >= 0)]
    return np.isin(codes, alone)


def late_share(blocks: Blocks, event_time: Ints, known_at: Ints) -> tuple[float, MeasuredShare]:
    """Seconds after which 99% of the rows were known, and how the share of later ones behaves."""
    seconds = (known_at - event_time) / 1e6
    limit = float(np.quantile(seconds, _HIGH, method="higher")) if len(seconds) else 0.0
    return limit, blocks.share(seconds > limit)


def field_profiles(
    kind: Literal["observation", "label"],
    specs: Mapping[str, FieldSpec],
    rows: Sequence[Mapping[str, Any]],
    blocks: Blocks,
) -> dict[str, FieldProfile]:
    """The profile of each field of `rows` [n]."""
    return {name: _field(kind, spec, [row.get(name) for row in rows], blocks) for name, spec in specs.items()}


def _field(
    kind: Literal["observation", "label"], spec: FieldSpec, values: Sequence[Any], blocks: Blocks
) -> FieldProfile:
    measures: dict[str, MeasuredShare] = {}
    if spec.nullable:
        measures["null"] = blocks.share(np.array([value is None for value in values], dtype=np.bool_))
    more: dict[str, Any] = {}
    if spec.type in {"number", "integer"}:
        more = _number(values, blocks, measures)
    elif spec.type == "category":
        more = _category(spec, values, blocks, measures)
    elif spec.type == "boolean":
        measures["true"] = blocks.share(np.array([value is True for value in values], dtype=np.bool_))
    return FieldProfile(kind=kind, measures=measures, **more)


def _number(values: Sequence[Any], blocks: Blocks, measures: dict[str, MeasuredShare]) -> dict[str, Any]:
    """Rows outside the range that held 98% of the values; what lies there by nature has its share."""
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    present = numbers[~np.isnan(numbers)]
    if len(present) == 0:
        return {}
    low = float(np.quantile(present, _LOW, method="lower"))
    high = float(np.quantile(present, _HIGH, method="higher"))
    measures["below"], measures["above"] = blocks.share(numbers < low), blocks.share(numbers > high)
    return {
        "low": low,
        "high": high,
        "minimum": float(present.min()),
        "mean": math.fsum(present.tolist()) / len(present),
        "median": float(np.quantile(present, 0.5, method="lower")),
        "maximum": float(present.max()),
    }


def _category(
    spec: FieldSpec, values: Sequence[Any], blocks: Blocks, measures: dict[str, MeasuredShare]
) -> dict[str, Any]:
    counted = Counter(value for value in values if value is not None)
    known = sorted(counted)
    code = {value: number for number, value in enumerate(known)}
    codes = np.array([-1 if value is None else code[value] for value in values], dtype=np.int64)
    for value in sorted(known, key=lambda value: (-counted[value], value))[:_MOST_TRACKED]:
        measures[f"is:{value}"] = blocks.share(codes == code[value])
    if len(known) > _MOST_KNOWN:
        return {"known": None}
    if spec.values is None and known:
        measures["unseen"] = blocks.share_of_new(codes)
    return {"known": known}
