"""What a log partition is made into: pipeline versions on the one side, what follows on the other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from everloop_features import Compiled, LogRecord, Overlay, State

from everloop_feature.domain.held import Change

__all__ = [
    "Derived",
    "Entry",
    "LogIncompleteError",
    "PipelineVersion",
    "UnusablePipelineError",
    "entries_from",
]

Entry = tuple[int, LogRecord]
"""A log record with its offset."""


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """A version of a pipeline, ready to compute; `definition` is its canonical JSON."""

    version: int
    definition: bytes
    compiled: Compiled


class UnusablePipelineError(Exception):
    """A pipeline version that this evaluator cannot compute; the registry checks with the same code."""


class LogIncompleteError(Exception):
    """State must be computed again, but the log begins at an offset above 0: what is older is lost."""

    def __init__(self, beginning: int, reasons: Mapping[int, str]) -> None:
        super().__init__("; ".join(f"version {version}: {reason}" for version, reason in reasons.items()))
        self.beginning = beginning


W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Derived(Generic[W]):
    """What follows from a batch: vectors, state changes, and the state to take over.

    A batch of the past says the generation that it leads to, and whether every version has caught up with it;
    `cut` is the offset from which the newest version is published, where that begins here.
    """

    vectors: Sequence[W]
    changes: Sequence[Change]
    overlays: Sequence[tuple[State, Overlay]]
    generation: str | None = None
    settles: bool = False
    cut: int | None = None


def entries_from(entries: Iterable[Entry], position: int) -> Iterable[Entry]:
    """The entries at or above an offset; usually all. What can be read only once begins there already."""
    if not isinstance(entries, list) or not entries or entries[0][0] >= position:
        return entries
    return [entry for entry in entries if entry[0] >= position]
