"""All gates of a pipeline on one of its windows: the declared and the learned ones."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final, Literal

from everloop_schemas.events import DataProfiled, WindowMeasured
from everloop_schemas.pipeline import Expectation, Pipeline, Quality

from everloop_ingest.domain.data_gates import About, CountGate, Gate, RatioGate, ShareGate
from everloop_ingest.domain.gauges import gate_name
from everloop_ingest.domain.learned_gates import (
    Level,
    Volumes,
    flow_gates,
    measures_of,
    share_gates,
    volume_gate,
)

__all__ = ["DAY", "REFERENCE_WINDOWS", "Rules", "Windows", "merged", "moment", "seconds"]

DAY: Final = 86_400
REFERENCE_WINDOWS: Final = 168
"""Past windows that a new one is compared with, beside the profile: a week of hours."""
_EARLY: Final = math.log(10)
"""A window is looked at before its end whenever new data is announced: then only far larger faults count."""
_NEVER: Final = 2**62
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Windows = Mapping[int, WindowMeasured]
"""By start, in seconds since 1970."""


def seconds(time: datetime) -> int:
    """Whole seconds since 1970."""
    return (time - _EPOCH) // timedelta(seconds=1)


def moment(seconds_: int) -> datetime:
    """The time so many seconds after 1970."""
    return _EPOCH + timedelta(seconds=seconds_)


@dataclass(frozen=True)
class Rules:
    """What holds for a pipeline now."""

    pipeline: Pipeline
    newest: DataProfiled | None
    """The profile of the newest training."""
    profile: DataProfiled | None = field(init=False)
    """The same, where the pipeline lets gates be learned."""
    quality: Quality = field(init=False)
    limit: float = field(init=False)
    """The surprise that a gate takes: all gates of a window together raise the declared false alarms."""

    def __post_init__(self) -> None:
        quality = self.pipeline.quality or Quality()
        learned = self.newest if quality.learned else None
        tests = max(1, measures_of(learned) + 2 * len(quality.expect) + 6 * quality.learned)
        object.__setattr__(self, "quality", quality)
        object.__setattr__(self, "profile", learned)
        object.__setattr__(self, "limit", math.log(tests * 100 / quality.false_alarms_per_100_windows))

    @property
    def step(self) -> int:
        """A window's seconds."""
        return self.quality.window // timedelta(seconds=1)

    @property
    def grace(self) -> int:
        """Seconds of pipeline time after a window's end in which the other partitions may still come."""
        return min(self.step, 3600)

    @property
    def profile_id(self) -> str | None:
        """The run whose profile counts."""
        return None if self.profile is None else self.profile.run_id

    def early(self, windows: Windows, start: int) -> Iterator[Gate]:
        """The gates that a window which is not over yet can be held against: shares."""
        window = windows[start]
        yield from self._declared_shares(window, self.limit + _EARLY)
        yield from self._invariants(windows, start, window, "window", self.limit + _EARLY)

    def final(
        self, windows: Windows, start: int, window: WindowMeasured, held: Collection[str]
    ) -> Iterator[Gate]:
        """Every gate of a window that is over; and, four times a day, those of the day before its end.

        Those that pass may be left out, but for the `held`.
        """
        yield from self._declared_shares(window, self.limit)
        yield from self._declared_counts(windows, start, window)
        yield from self._invariants(windows, start, window, "window", self.limit)
        if not self.quality.learned:
            return
        past = _past(windows, start, self.step)
        block = self.quality.on_broken
        yield from flow_gates(window, past, limit=self.limit, on_broken=block, held=held)
        yield from self._volume(windows, start, held)
        end = start + self.step
        if self.step < DAY and end % (DAY // 4) < self.step:
            yield from self._day(windows, end - DAY)
        if self.step < DAY and end % DAY == 0:
            yield from self._day_volume(windows, end - DAY, held)

    def _invariants(
        self,
        windows: Windows,
        start: int,
        window: WindowMeasured,
        scale: Literal["window", "day"],
        limit: float,
    ) -> Iterator[Gate]:
        if self.profile is None or window.profile != self.profile.run_id:
            return
        level = Level(_past(windows, start, self.step), self.profile.run_id)
        block = self.quality.on_broken
        yield from share_gates(self.profile, window, level, scale=scale, limit=limit, on_broken=block)

    def _day(self, windows: Windows, start: int) -> Iterator[Gate]:
        """The day's windows together: small faults show, and columns that vary much from hour to hour."""
        parts = [windows[each] for each in range(start, start + DAY, self.step) if each in windows]
        alike = [each for each in parts if each.profile == self.profile_id]
        if alike:
            yield from self._invariants(windows, start, merged(alike), "day", self.limit)

    def _volume(self, windows: Windows, start: int, held: Collection[str]) -> Iterator[Gate]:
        about = About("volume", "learned", self.quality.on_broken)
        gate = volume_gate(self._volumes(windows), start, limit=self.limit, about=about, held=held)
        if gate is not None:
            yield gate

    def _volumes(self, windows: Windows) -> Volumes:
        def rows(start: int) -> int:
            window = windows.get(start)
            return 0 if window is None else window.observations

        def broken(start: int) -> bool:
            window = windows.get(start)
            return window is not None and window.state == "broken"

        # the first one may have begun in its middle
        return Volumes(rows, broken, self.step, min(windows, default=_NEVER) + self.step)

    def _day_volume(self, windows: Windows, start: int, held: Collection[str]) -> Iterator[Gate]:
        rows = Counter[int]()
        for each, window in windows.items():
            rows[each - each % DAY] += window.observations
        broken = {each - each % DAY for each, window in windows.items() if window.state == "broken"}
        volumes = Volumes(rows.__getitem__, broken.__contains__, DAY, min(rows, default=_NEVER) + DAY)
        about = About("volume a day", "learned", self.quality.on_broken, scale="day")
        gate = volume_gate(volumes, start, limit=self.limit, about=about, held=held)
        if gate is not None:
            yield gate

    def _declared_shares(self, window: WindowMeasured, limit: float) -> Iterator[Gate]:
        for wanted in self.quality.expect:
            counted = self._failing(wanted, window)
            if counted is not None:
                count, rows = counted
                about = self._about(wanted)
                yield ShareGate(about, count, rows, None, 1 - wanted.mostly, 0.0, limit)

    def _failing(self, wanted: Expectation, window: WindowMeasured) -> tuple[int, int] | None:
        """Rows that are not as expected, and of how many; None for what is no share."""
        if wanted.expect in {"row_count", "volume"}:
            return None
        came = window.observations + window.labels
        if wanted.expect == "unique":
            return window.duplicates, came + window.duplicates
        if wanted.expect == "accepted":
            return window.quarantined, came + window.quarantined
        observed = wanted.field is None or wanted.field in self.pipeline.observation.fields
        rows = window.observations if observed else window.labels
        return min(window.declared.get(gate_name(wanted), 0), rows), rows

    def _declared_counts(self, windows: Windows, start: int, window: WindowMeasured) -> Iterator[Gate]:
        volumes = self._volumes(windows)
        if start < volumes.first or not self.quality.expect:
            return
        past = volumes.usual(start)
        for wanted in self.quality.expect:
            if wanted.expect == "row_count":
                yield CountGate(self._about(wanted), window.observations, wanted.min, wanted.max)
            if wanted.expect == "volume" and past:
                about, usual = self._about(wanted), float(median(past))
                yield RatioGate(about, window.observations, usual, wanted.min, wanted.max, self.limit)

    def _about(self, wanted: Expectation) -> About:
        block = wanted.on_broken or self.quality.on_broken
        return About(gate_name(wanted), "declared", block, wanted.field)


def _past(windows: Windows, start: int, step: int) -> list[WindowMeasured]:
    """The windows before `start` that there are, up to a week of hours."""
    starts = range(start - REFERENCE_WINDOWS * step, start, step)
    return [windows[each] for each in starts if each in windows]


def merged(parts: Sequence[WindowMeasured]) -> WindowMeasured:
    """Windows under one profile as one."""
    learned: dict[str, int] = {}
    unseen: dict[str, list[str]] = {}
    for part in parts:
        for name, rows in part.learned.items():
            learned[name] = learned.get(name, 0) + rows
        for name, values in part.unseen.items():
            unseen.setdefault(name, []).extend(values)
    return parts[0].model_copy(
        update={
            "end": parts[-1].end,
            "learned": learned,
            "unseen": unseen,
            "profiled_observations": sum(part.profiled_observations for part in parts),
            "profiled_labels": sum(part.profiled_labels for part in parts),
        }
    )
