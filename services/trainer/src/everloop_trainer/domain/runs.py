"""A run from its decision to its end, and the log's progress that its cut is taken from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from everloop_schemas.events import Cut, Trigger, Value
from everloop_schemas.ids import derived_id

__all__ = ["MAXIMUM_CRASHES", "Progress", "Run", "cut_of", "needs_of", "pipeline_time", "run_id_of"]

MAXIMUM_CRASHES = 3
"""A training process that died so often of itself will die again: the run fails."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is consumed of one log partition. `next_offset` is one above the last record's."""

    partition: int
    next_offset: int
    last_observation: int
    labels: int
    known_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One training, caused by one trigger. `needs`: per partition the last observation below the cut."""

    run_id: str
    pipeline: str
    pipeline_version: int
    trigger: Trigger
    overrides: Mapping[str, Value]
    cut: Cut
    labels_at_cut: int
    pipeline_time: datetime
    needs: Mapping[int, int]
    traceparent: str | None = None
    attempts: int = 0
    crashes: int = 0


def run_id_of(trigger_event_id: str) -> str:
    """One run a trigger: the same trigger always names the same run."""
    return derived_id(trigger_event_id, "run")


def cut_of(progress: Mapping[int, Progress], partitions: int) -> Cut:
    """The next offset of every partition; 0 where nothing was consumed."""
    return {n: progress[n].next_offset if n in progress else 0 for n in range(partitions)}


def needs_of(progress: Mapping[int, Progress]) -> dict[int, int]:
    """The last observation consumed of each partition that has one."""
    return {n: p.last_observation for n, p in progress.items() if p.last_observation >= 0}


def pipeline_time(progress: Mapping[int, Progress]) -> datetime | None:
    """The highest known_at seen; None before the first record."""
    return max((p.known_at for p in progress.values()), default=None)
