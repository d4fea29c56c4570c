"""Gates that nobody declared: from the profile of the newest training, and from the past weeks' windows."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from everloop_schemas.events import DataProfiled, MeasuredShare, WindowMeasured
from everloop_schemas.shares import SharePattern, learn_share

from everloop_ingest.domain.data_gates import About, Gate, RatioGate, ShareGate
from everloop_ingest.domain.gauges import LATE

__all__ = ["Level", "flow_gates", "invariants", "measures_of", "share_gates", "usual_rows", "volume_gate"]

Scale = Literal["window", "day"]
_BEYOND_WORST: Final = 1.25
"""An invariant is broken only beyond what the past has shown, and a quarter more."""
_FEWEST_ROWS: Final = 20
"""A window with fewer rows says nothing about what was learned."""
_FEWEST_LATELY: Final = 12
"""Windows that say where a share is by now: one that was too small to be judged must not excuse the next."""
_FEWEST_PAST: Final = 24
"""Windows that a flow's pattern is learned from."""
_FEWEST_WEEKS: Final = 3
_SMALLEST_SWING: Final = 0.1
"""Of volume, as a logarithm: a tenth more or less is never an alarm."""
_SHORTEST_LIST: Final = 10


@dataclass(frozen=True, slots=True)
class Invariant:
    """One learned measure."""

    name: str
    field: str | None
    pattern: MeasuredShare
    kind: Literal["observation", "label"]

    @property
    def both_sides(self) -> bool:
        """Whether too few are a fault too: of a category or of true; fewer nulls are none."""
        return ":is:" in self.name or self.name.endswith(":true")


class Level:
    """Where shares were lately: slow change is drift, the monitor's matter; a gate is for sudden faults."""

    def __init__(self, past: Sequence[WindowMeasured], profile: str) -> None:
        self._past = [each for each in past if each.profile == profile and each.state != "broken"]

    def share(self, invariant: Invariant) -> float | None:
        """The share over the past windows; None where too few had rows enough to be judged themselves."""
        past = [each for each in self._past if _rows(each, invariant) >= _FEWEST_ROWS]
        if len(past) < _FEWEST_LATELY:
            return None
        rows = sum(_rows(each, invariant) for each in past)
        return sum(each.learned.get(invariant.name, 0) for each in past) / rows


def measures_of(profile: DataProfiled | None) -> int:
    """How many one-sided tests a window is put to, on both scales."""
    return 0 if profile is None else 2 * sum(1 + each.both_sides for each in invariants(profile))


def invariants(profile: DataProfiled) -> Iterator[Invariant]:
    """Every learned measure of a profile."""
    yield Invariant(LATE, None, profile.late, "observation")
    for name, found in profile.fields.items():
        for measure, pattern in found.measures.items():
            yield Invariant(f"{name}:{measure}", name, pattern, found.kind)


def share_gates(
    profile: DataProfiled,
    window: WindowMeasured,
    level: Level,
    *,
    scale: Scale,
    limit: float,
    on_broken: Literal["block", "warn"],
) -> Iterator[Gate]:
    """Each invariant on one window, or on one day."""
    for invariant in invariants(profile):
        count, rows = window.learned.get(invariant.name, 0), _rows(window, invariant)
        if rows < _FEWEST_ROWS:
            continue
        pattern: SharePattern = getattr(invariant.pattern, scale)
        allowed = max(limit, _BEYOND_WORST * pattern.worst)
        name = invariant.name if scale == "window" else f"{invariant.name} a day"
        examples = window.unseen.get(invariant.field or "", []) if name.startswith(_unseen(invariant)) else []
        about = About(name, "learned", on_broken, invariant.field, scale, examples)
        usual, low = _bounds(pattern) if invariant.both_sides else (_bounds(pattern)[0], None)
        gate = ShareGate(about, count, rows, low, usual, pattern.correlation, allowed)
        if gate.broken and (lately := level.share(invariant)) is not None:
            bounds = (None if low is None else min(low, lately), max(usual, lately))
            gate = ShareGate(about, count, rows, *bounds, pattern.correlation, allowed)
        yield gate


def _bounds(pattern: SharePattern) -> tuple[float, float]:
    """Where the usual share may lie, highest first: the training saw so many windows and no more."""
    high = min(pattern.share + 2 * pattern.error, 1 - 1e-9)
    return high, max(pattern.share - 2 * pattern.error, min(pattern.share, 1e-9))


def _unseen(invariant: Invariant) -> str:
    return f"{invariant.field}:unseen"


def _rows(window: WindowMeasured, invariant: Invariant) -> int:
    return window.profiled_observations if invariant.kind == "observation" else window.profiled_labels


def flow_gates(
    window: WindowMeasured,
    past: Sequence[WindowMeasured],
    *,
    limit: float,
    on_broken: Literal["block", "warn"],
) -> Iterator[Gate]:
    """The shares of duplicates and of quarantined records among those that came, by the past windows'."""
    known = [each for each in past if each.state != "broken" and _came(each) >= _FEWEST_ROWS]
    if len(known) < _FEWEST_PAST:
        return
    for name in ("duplicates", "quarantined"):
        count: int = getattr(window, name)
        if count and _came(window) >= _FEWEST_ROWS:
            pattern = learn_share([getattr(each, name) for each in known], [_came(each) for each in known])
            allowed = max(limit, _BEYOND_WORST * pattern.worst)
            about = About(name, "learned", on_broken)
            high = _bounds(pattern)[0]
            yield ShareGate(about, count, _came(window), None, high, pattern.correlation, allowed)


def _came(window: WindowMeasured) -> int:
    return window.observations + window.labels + window.duplicates + window.quarantined


def usual_rows(rows: Mapping[int, int], start: int, *, week: int, first: int) -> list[int]:
    """Rows of the same hour (or day) in each of the four weeks before; of a time nobody saw, nothing."""
    starts = (start - number * week for number in range(1, 5))
    return [rows.get(each, 0) for each in starts if each >= first]


def volume_gate(
    rows: Mapping[int, int],
    start: int,
    *,
    step: int,
    week: int,
    first: int,
    skip: Collection[int],
    limit: float,
    about: About,
) -> Gate | None:
    """The rows of a window against the same hour of past weeks; `rows` by start, all in the same unit.

    How far weeks differ is taken from the past week's windows of a size like this one's, but for
    those to `skip`: broken ones.
    """
    past = usual_rows(rows, start, week=week, first=first)
    if len(past) < _FEWEST_WEEKS:
        return None
    usual = median(past)
    sound = [each for each in range(start - week, start, step) if each not in skip]
    swings = list(_swings(rows, sound, week=week, first=first, least=usual / 4))
    if len(swings) < min(_SHORTEST_LIST, week // step):
        return None
    swing = max(_SMALLEST_SWING, _BEYOND_WORST * max(swings))
    return RatioGate(about, rows.get(start, 0), usual, math.exp(-swing), math.exp(swing), limit)


def _swings(
    rows: Mapping[int, int], starts: Sequence[int], *, week: int, first: int, least: float
) -> Iterator[float]:
    """How far (as a logarithm) each of these windows lay from its own past weeks."""
    for earlier in starts:
        past = usual_rows(rows, earlier, week=week, first=first)
        if len(past) >= _FEWEST_WEEKS - 1 and (usual := median(past)) >= max(least, 1.0):
            yield abs(math.log((rows.get(earlier, 0) + 1) / (usual + 1)))
