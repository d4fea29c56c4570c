"""How fast a replay goes and when it will have caught up, from where it was a moment ago."""

import math
import time
from collections import deque
from collections.abc import Callable

from everloop_feature import metrics

__all__ = ["Progress"]

_WINDOW_SECONDS = 60.0
_MOST_SAMPLES = 240

Sample = tuple[float, int, int]
"""When, position, target."""


class Progress:
    """The replay of one log partition, in the metrics.

    One that is no faster than live records come has no end in sight: its seconds are infinite.
    """

    def __init__(self, pipeline: str, partition: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._labels = pipeline, str(partition)
        self._clock = clock
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)

    def note(self, position: int, target: int) -> None:
        """The replay is at `position` of `target`, as log offsets; equal when none is under way."""
        if position >= target:
            self._samples.clear()
        rate, seconds = self._pace(position, target)
        metrics.REPLAY_POSITION.labels(*self._labels).set(position)
        metrics.REPLAY_TARGET.labels(*self._labels).set(target)
        metrics.REPLAY_RATE.labels(*self._labels).set(rate)
        metrics.REPLAY_SECONDS_LEFT.labels(*self._labels).set(seconds)

    def _pace(self, position: int, target: int) -> tuple[float, float]:
        """Rows a second over the last minute, and seconds until the gap is closed at the pace it closes."""
        if position >= target:
            return 0.0, 0.0
        now, samples = self._clock(), self._samples
        while samples and samples[0][0] < now - _WINDOW_SECONDS:
            samples.popleft()
        if not samples or now - samples[-1][0] > _WINDOW_SECONDS / _MOST_SAMPLES:
            samples.append((now, position, target))
        since, begun, aim = samples[0]
        passed = now - since
        if passed <= 0 or position < begun:
            return 0.0, math.inf
        closed = (position - begun) - (target - aim)
        return (position - begun) / passed, (target - position) * passed / closed if closed > 0 else math.inf
