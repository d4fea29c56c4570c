"""Gates that nobody declared: from the profile of the newest training, and from the past weeks' windows."""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import median
from typing import Final, Literal

from everloop_schemas.events import DataProfiled, MeasuredShare, WindowMeasured
from everloop_schemas.shares import SharePattern, learn_share, usual_share

from everloop_ingest.domain.data_gates import About, Gate, RatioGate, ShareGate
from everloop_ingest.domain.gauges import LATE

__all__ = [
    "Level",
    "Volumes",
    "flow_gates",
    "invariants",
    "measures_of",
    "share_gates",
    "volume_gate",
]


@dataclass(frozen=True)
class Volumes:
    """Observations by window (or day), each `step` seconds; starts are seconds since 1970.

    `first` is the first window that was seen whole. How far weeks differ is not taken from `broken` windows.
    """

    rows: Callable[[int], int]
    broken: Callable[[int], bool]
    step: int
    first: int

    @cached_property
    def week(self) -> int:
        """Seconds from a window to the one that it is compared with."""
        return max(_WEEK, self.step)

    def usual(self, start: int) -> list[int]:
        """Rows of the same hour (or day) in each of the four weeks before; of a time nobody saw, nothing."""
        week = self.week
        return [self.rows(start - weeks * week) for weeks in _WEEKS if start - weeks * week >= self.first]

    def swings(self, start: int, *, least: float) -> Iterator[float]:
        """How far (as a logarithm) each sound window of the past week lay from its own past weeks."""
        for each in range(start - self.week, start, self.step):
            past = () if self.broken(each) else self.usual(each)
            if len(past) >= _FEWEST_WEEKS - 1 and (usual := median(past)) >= max(least, 1.0):
                yield abs(math.log((self.rows(each) + 1) / (usual + 1)))


Scale = Literal["window", "day"]
_BEYOND_WORST: Final = 1.25
"""An invariant is broken only beyond what the past has shown, and a quarter more."""
_FEWEST_ROWS: Final = 20
"""A window with fewer rows says nothing about what was learned."""
_FEWEST_LATELY: Final = 12
"""Windows that say where a share is by now: one that was too small to be judged must not excuse the next."""
_FEWEST_PAST: Final = 24
"""Windows that a flow's pattern is learned from."""
_WEEKS: Final = (1, 2, 3, 4)
_FEWEST_WEEKS: Final = 3
_WEEK: Final = 7 * 86_400
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
    held: Collection[str],
) -> Iterator[Gate]:
    """The shares of duplicates and of quarantined records among those that came, by the past windows'.

    A gate that passes is left out unless it is among the `held`: how far windows stray takes long to find.
    """
    came = _came(window)
    counts = {name: count for name in ("duplicates", "quarantined") if (count := getattr(window, name))}
    if came < _FEWEST_ROWS or not counts:
        return
    known = [each for each in past if each.state != "broken" and _came(each) >= _FEWEST_ROWS]
    if len(known) < _FEWEST_PAST:
        return
    totals = [_came(each) for each in known]
    for name, count in counts.items():
        before = [getattr(each, name) for each in known]
        pattern = usual_share(before, totals)
        about, high = About(name, "learned", on_broken), _bounds(pattern)[0]
        gate = ShareGate(about, count, came, None, high, pattern.correlation, limit)
        if gate.broken or name in held:
            allowed = max(limit, _BEYOND_WORST * learn_share(before, totals).worst)
            yield replace(gate, limit=allowed)


def _came(window: WindowMeasured) -> int:
    return window.observations + window.labels + window.duplicates + window.quarantined


def volume_gate(
    volumes: Volumes, start: int, *, limit: float, about: About, held: Collection[str]
) -> Gate | None:
    """The rows of a window against the same hour of past weeks; as far as windows of a like size stray.

    A gate that passes is left out unless it is among the `held`: how far windows stray takes long to find,
    and is taken for no less than `_SMALLEST_SWING`.
    """
    past = volumes.usual(start)
    if len(past) < _FEWEST_WEEKS:
        return None
    rows, usual = volumes.rows(start), median(past)
    if about.gate not in held and not _ratio_gate(about, rows, usual, _SMALLEST_SWING, limit).broken:
        return None
    swings = list(volumes.swings(start, least=usual / 4))
    if len(swings) < min(_SHORTEST_LIST, volumes.week // volumes.step):
        return None
    return _ratio_gate(about, rows, usual, max(_SMALLEST_SWING, _BEYOND_WORST * max(swings)), limit)


def _ratio_gate(about: About, rows: int, usual: float, swing: float, limit: float) -> RatioGate:
    return RatioGate(about, rows, usual, math.exp(-swing), math.exp(swing), limit)
