"""One log partition of one pipeline: every version that somebody needs, each at its own position."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from everloop_features import Compiled, LogRecord, Overlay, State, Vector, derive, version_of
from everloop_features.packing import definition_key, position_in

__all__ = ["Change", "Derived", "Entry", "PartitionFeatures", "PipelineVersion"]

MOST_TOMBSTONES = 10_000
"""Keys of versions nobody needs that one transaction removes."""

Entry = tuple[int, LogRecord]
"""A log record with its offset."""

Change = tuple[bytes, bytes | None]
"""A key of the state topic and its new value; None removes it."""


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """A version of a pipeline, ready to compute; `definition` is its canonical JSON."""

    version: int
    definition: bytes
    compiled: Compiled


W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Derived(Generic[W]):
    """What follows from a batch: the newest version's vectors, state changes, and the state to take over."""

    vectors: Sequence[W]
    changes: Sequence[Change]
    overlays: Sequence[tuple[State, Overlay]]


class PartitionFeatures:
    """Vectors of the newest version, and the state of it and of every version that is still deployed.

    Each version's state says up to which offset it contains the log. A version that is behind (it is new, or
    deployed again) catches up from the log's beginning; the others pass over what they have seen. So nothing
    depends on where the reading begins, and no vector is published twice.
    """

    def __init__(
        self, current: PipelineVersion, deployed: Iterable[int], read: Callable[[int, bytes], PipelineVersion]
    ) -> None:
        self._current = current
        self._wanted = {current.version, *deployed}
        self._read = read
        self._states = {current.version: current.compiled.new_state(current.version)}
        self._defined: set[int] = set()
        self._obsolete: dict[bytes, None] = {}
        self._obsolete_position = 0

    @property
    def generation(self) -> str:
        """The versions that are computed: another set needs the log from its beginning."""
        return ",".join(f"v{version}" for version in sorted(self._wanted))

    @property
    def version(self) -> int:
        """The newest version: the one whose vectors are published."""
        return self._current.version

    @property
    def position(self) -> int:
        """Records below this offset are contained in every version's state."""
        return min(state.position for state in self._states.values())

    @property
    def replay(self) -> tuple[int, int]:
        """(position, target) in the log: below the target the newest version sees what an earlier one saw.

        Equal when no replay is under way.
        """
        reached = self._states[self._current.version].position
        seen = max(self._obsolete_position, *(state.position for state in self._states.values()))
        return reached, max(reached, seen)

    @property
    def keys(self) -> int:
        """How many keys the newest version holds state for."""
        return sum(len(table) for table in self._states[self._current.version].tables)

    @property
    def unknown(self) -> set[int]:
        """Deployed versions whose definition is nowhere: they cannot be kept up."""
        return self._wanted - self._states.keys()

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take one entry of the state topic. Raises StateFormatError."""
        version = version_of(key)
        if version is None:
            return
        if key == definition_key(version):
            self._restore_definition(version, value)
        elif version in self._states:
            self._states[version].load(key, value)
        elif version not in self._wanted:
            self._note_obsolete(key, value)

    def derive(self, entries: Iterable[Entry], write: Callable[[Vector], W]) -> Derived[W]:
        """What follows from records in offset order, none below `position`; changes nothing.

        A vector is written as soon as it is computed, and a record read just before: what they are made of is
        still in the processor's caches then, which saves a tenth.
        """
        once = entries if len(self._states) == 1 else list(entries)
        vectors: list[W] = []
        changes: list[Change] = list(self._definitions())
        overlays = []
        for version, state in self._states.items():
            overlay = state.begin()
            computed = derive(state.compiled, _from(once, state.position), overlay)
            if version == self._current.version:
                vectors = list(map(write, computed))
            else:
                deque(computed, maxlen=0)
            changes += overlay.changes()
            overlays.append((state, overlay))
        reached = overlays[0][1].position
        return Derived(vectors, [*changes, *self._tombstones(reached)], overlays)

    def apply(self, derived: Derived[W]) -> None:
        """Take over what `derive` found, once it is committed."""
        for state, overlay in derived.overlays:
            state.merge(overlay)
        self._defined.update(self._states)
        for key, value in derived.changes:
            if value is None:
                self._obsolete.pop(key, None)

    def _definitions(self) -> Iterable[Change]:
        if self._current.version not in self._defined:
            yield definition_key(self._current.version), self._current.definition

    def _tombstones(self, reached: int) -> Iterable[Change]:
        """Nothing is removed before the newest version has seen what the removed one had seen."""
        if reached >= self._obsolete_position:
            for key, _ in zip(self._obsolete, range(MOST_TOMBSTONES), strict=False):
                yield key, None

    def _restore_definition(self, version: int, definition: bytes | None) -> None:
        """Definitions stay for ever: a version may be deployed again."""
        if definition is None:
            return
        self._defined.add(version)
        if version in self._wanted and version not in self._states:
            self._states[version] = self._read(version, definition).compiled.new_state(version)

    def _note_obsolete(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._obsolete.pop(key, None)
        else:
            self._obsolete[key] = None
            self._obsolete_position = max(self._obsolete_position, position_in(key, value))


def _from(entries: Iterable[Entry], position: int) -> Iterable[Entry]:
    """The entries at or above an offset; usually all. What can be read only once begins there already."""
    if not isinstance(entries, list) or not entries or entries[0][0] >= position:
        return entries
    return [entry for entry in entries if entry[0] >= position]
