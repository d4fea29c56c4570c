"""One log partition of one pipeline: every version that somebody needs, each at its own position."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from everloop_features import (
    Compiled,
    LogRecord,
    Overlay,
    State,
    StateFormatError,
    Vector,
    derive,
    version_of,
)
from everloop_features.packing import CLOCK, definition_key, position_in

from everloop_feature.domain.rebuild import Rebuild

__all__ = [
    "Change",
    "Derived",
    "Entry",
    "LogIncompleteError",
    "PartitionFeatures",
    "PipelineVersion",
    "UnusablePipelineError",
]

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
    """What follows from a batch: the newest version's vectors, state changes, and the state to take over."""

    vectors: Sequence[W]
    changes: Sequence[Change]
    overlays: Sequence[tuple[State, Overlay]]


class PartitionFeatures:
    """Vectors of the newest version, and the state of it and of every version that is still deployed.

    Each version's state says up to which offset it contains the log. A version that is behind (it is new, or
    deployed again) catches up from the log's beginning; the others pass over what they have seen. So nothing
    depends on where the reading begins, and no vector is published twice. A version whose state cannot be
    read is computed again from the log; `accept_partial`: also from one whose beginning is gone.
    """

    def __init__(
        self,
        current: PipelineVersion,
        deployed: Iterable[int],
        read: Callable[[int, bytes], PipelineVersion],
        *,
        accept_partial: bool = False,
    ) -> None:
        self._current = current
        self._accept_partial = accept_partial
        self._wanted = {current.version, *deployed}
        self._read = read
        self._states = {current.version: current.compiled.new_state(current.version)}
        self._unreadable: dict[int, dict[bytes, str]] = {}
        self._reached: dict[int, int] = {}
        self._rebuilds: dict[int, Rebuild] = {}
        self._published = 0
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
        rebuilt = [rebuild.target for rebuild in self._rebuilds.values()]
        seen = max(self._obsolete_position, *(state.position for state in self._states.values()), *rebuilt)
        return reached, max(reached, seen)

    @property
    def rebuilds(self) -> dict[int, str]:
        """Versions whose state is computed again from the log, each with the reason."""
        return {version: rebuild.reason for version, rebuild in self._rebuilds.items()}

    @property
    def keys(self) -> int:
        """How many keys the newest version holds state for."""
        return sum(len(table) for table in self._states[self._current.version].tables)

    @property
    def unknown(self) -> set[int]:
        """Deployed versions whose definition is nowhere: they cannot be kept up."""
        return self._wanted - self._states.keys()

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take one entry of the state topic; what cannot be read may still be replaced by a later entry."""
        version = version_of(key)
        if version is None:
            return
        if key == definition_key(version):
            self._restore_definition(version, value)
        elif version in self._states:
            self._load(version, key, value)
        elif version not in self._wanted:
            self._note_obsolete(key, value)

    def begin(self, beginning: int, committed: int | None) -> int:
        """The offset at which handling goes on: the log's beginning where state must be computed again.

        Vectors below `committed` are published already. Raises LogIncompleteError where the log no longer
        has its beginning.
        """
        for version, state in list(self._states.items()):
            unreadable = self._unreadable.pop(version, {})
            if state.position == 0 and any(map(len, state.tables)):
                unreadable.setdefault(state.prefix + CLOCK, "the entry that says how far it is is missing")
            if unreadable:
                self._give_up(version, unreadable)
        if not self._rebuilds:
            return beginning if committed is None else committed
        if beginning > 0 and not self._accept_partial:
            raise LogIncompleteError(beginning, self.rebuilds)
        for rebuild in self._rebuilds.values():
            rebuild.target = rebuild.target or committed or 0
        if self._current.version in self._rebuilds:
            self._published = max(committed or 0, self._rebuilds[self._current.version].target)
        return beginning

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
                vectors = list(map(write, computed)) if not self._published else self._new(computed, write)
            else:
                deque(computed, maxlen=0)
            changes += self._changes(version, state, overlay)
            overlays.append((state, overlay))
        reached = overlays[0][1].position
        return Derived(vectors, [*changes, *self._tombstones(reached)], overlays)

    def apply(self, derived: Derived[W]) -> None:
        """Take over what `derive` found, once it is committed."""
        for state, overlay in derived.overlays:
            state.merge(overlay)
            rebuild = self._rebuilds.get(state.version)
            if rebuild is not None and rebuild.is_done(state.position):
                del self._rebuilds[state.version]
        if self._states[self._current.version].position >= self._published:
            self._published = 0
        self._defined.update(self._states)
        for key, value in derived.changes:
            if value is None:
                self._obsolete.pop(key, None)

    def _load(self, version: int, key: bytes, value: bytes | None) -> None:
        unreadable = self._unreadable.setdefault(version, {})
        try:
            self._states[version].load(key, value)
        except StateFormatError as error:
            unreadable[key] = str(error)
            readable = value is None
        else:
            readable = True
        if unreadable and readable:
            unreadable.pop(key, None)
        if key.endswith(CLOCK):
            self._reached[version] = max(self._reached.get(version, 0), position_in(key, value or b""))

    def _give_up(self, version: int, unreadable: Mapping[bytes, str]) -> None:
        """Begin a version's state anew, to be computed from the log."""
        state = self._states[version]
        before = {*unreadable, *(key for key, _ in state.dump())}
        reason = next(iter(unreadable.values()))
        self._rebuilds[version] = Rebuild(reason, before, self._reached.get(version, 0))
        self._states[version] = state.compiled.new_state(version)

    def _changes(self, version: int, state: State, overlay: Overlay) -> Iterable[Change]:
        rebuild = self._rebuilds.get(version)
        if rebuild is None:
            return overlay.changes()
        is_done = rebuild.is_done(overlay.position)
        return rebuild.changes(state, overlay) if is_done else rebuild.mark(state)

    def _new(self, computed: Iterable[Vector], write: Callable[[Vector], W]) -> list[W]:
        """Those vectors that were not published before the state was lost."""
        return [write(vector) for vector in computed if vector.offset >= self._published]

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
        if version == self._current.version:
            if definition == self._current.definition:
                self._defined.add(version)
        elif version in self._wanted and version not in self._states:
            with suppress(UnusablePipelineError):  # it stays unknown, and the task says so
                self._states[version] = self._read(version, definition).compiled.new_state(version)
                self._defined.add(version)

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
