"""One log partition of one pipeline: every version that somebody needs, each at its own position."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from everloop_features import Overlay, State, Vector, derive, version_of
from everloop_features.packing import cut_key, definition_key, pack

from everloop_feature.domain.derived import (
    Derived,
    Entry,
    LogIncompleteError,
    PipelineVersion,
    UnusablePipelineError,
    entries_from,
)
from everloop_feature.domain.generation import Generation, published_by, replayed_to, settled
from everloop_feature.domain.held import Change, Held

__all__ = [
    "Change",
    "Derived",
    "Entry",
    "LogIncompleteError",
    "PartitionFeatures",
    "PipelineVersion",
    "UnusablePipelineError",
]

MOST_TOMBSTONES = 2_000
"""Keys of versions nobody needs that one transaction removes."""

W = TypeVar("W")


class PartitionFeatures:
    """Vectors of one version, and the state of it, of the newest and of every version that is deployed.

    Live records are computed by the versions that have seen all before them; the vectors are those of one of
    these, the published one. A version that is behind (it is new, or deployed again) gets the log from its
    beginning, beside live records, until it has seen as much. Then it joins them, and if it is the newest,
    its vectors take over there, at the cut. Each version's state says up to which offset it contains the log,
    so nothing depends on where the reading begins, and no vector is published twice. A version whose state
    cannot be read is computed again from the log; `accept_partial`: also from one whose beginning is gone.

    Calls: `resume`, `restore` for each entry of the state topic, `begin`; or `adopt`. Then `catch_up_from`;
    then `derive` and `derive_past` in turns, each followed by `apply` once it is committed.
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
        self._wanted = frozenset({current.version, *deployed})
        self._read = read
        self._published = current.version
        self._committed = settled(self._wanted)
        self._held = Held({current.version: current.compiled.new_state(current.version)})
        self._behind: frozenset[int] = frozenset()
        self._caught_up: frozenset[int] = frozenset()
        self._live_position = 0

    @property
    def generation(self) -> str:
        """What is committed with the offset of live records: the versions, and how far a replay is."""
        return self._generation(self._position(self._behind))

    @property
    def version(self) -> int:
        """The newest version."""
        return self._current.version

    @property
    def published(self) -> int:
        """The version whose vectors are published for live records."""
        return self._published

    @property
    def held(self) -> Held:
        """What is in memory; whoever goes on with it must be the only one."""
        return self._held

    @property
    def live_position(self) -> int:
        """Live records below this offset are contained in the state of every version that computes them."""
        return self._position(self._held.versions - self._behind)

    @property
    def past_position(self) -> int:
        """Records of the past below this offset are contained in every version that is behind."""
        return self._position(self._behind)

    @property
    def replay(self) -> tuple[int, int]:
        """(position, target) in the log: how far the version that is furthest behind is, and how far it must.

        Equal when no replay is under way.
        """
        if not self._behind:
            reached, rebuild = self._held.states[self.version].position, self._held.rebuilds.get(self.version)
            return reached, max(reached, rebuild.target if rebuild else 0)
        return self.past_position, max(self._live_position, self.live_position)

    @property
    def rebuilds(self) -> dict[int, str]:
        """Versions whose state is computed again from the log, each with the reason."""
        return {version: rebuild.reason for version, rebuild in self._held.rebuilds.items()}

    @property
    def keys(self) -> int:
        """How many keys the newest version holds state for."""
        return sum(len(table) for table in self._held.states[self._current.version].tables)

    @property
    def unknown(self) -> frozenset[int]:
        """Deployed versions whose definition is nowhere: they cannot be kept up."""
        return self._wanted - self._held.versions

    def resume(self, generation: str | None) -> None:
        """Go on from a committed offset's generation: the version that was published is, until the cut."""
        if generation is not None:
            self._committed = generation
            self._published = published_by(generation) or self._current.version

    def adopt(self, running: "PartitionFeatures") -> bool:
        """Take over from what has been computed so far, instead of `resume` and `restore`.

        False, with nothing done, when a version is wanted of which only the state topic may know something.
        """
        kept, held = self._wanted | {running.published}, running.held
        if kept - {self.version} - held.restorable:
            return False
        self._published, self._committed = running.published, ""
        held.keep_only(kept)
        held.states = {**self._held.states, **held.states}
        self._held = held
        return True

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Take one entry of the state topic; what cannot be read may still be replaced by a later entry."""
        version = version_of(key)
        if version is None:
            return
        if key == definition_key(version):
            self._restore_definition(version, value)
        elif version in self._held.states:
            self._held.load(version, key, value)
        elif value is None:
            self._held.obsolete.pop(key, None)
        elif version not in self._wanted:
            self._held.obsolete[key] = None

    def begin(self, beginning: int, committed: int | None) -> int:
        """The offset at which live records go on.

        That is the log's beginning where the published state must be computed again: live records need it.
        Any other catches up beside them. Raises LogIncompleteError where the log no longer has its beginning.
        """
        self._held.give_up_unreadable()
        if self._held.rebuilds and beginning > 0 and not self._accept_partial:
            raise LogIncompleteError(beginning, self.rebuilds)
        for version, rebuild in self._held.rebuilds.items():
            is_published = version == self._published
            known = (committed if is_published else replayed_to(self._committed)) or 0
            rebuild.target = rebuild.target or known
            self._held.published[version] = max(rebuild.target, known if is_published else 0)
        if committed is None or self._published in self._held.rebuilds:
            return beginning
        return committed

    def catch_up_from(self, position: int) -> int | None:
        """Find the versions behind live records, which come from `position` on; where to read the log from.

        None when nothing is left to do, `position` when only something has to be written.
        """
        self._live_position = position
        behind = {version for version in self._held.versions if self._is_behind(version, position)}
        self._behind = frozenset(behind if self._published == self.version else {*behind, self.version})
        if self._behind:
            return min(position, self.past_position)
        return position if self._held.obsolete or self.generation != self._committed else None

    def derive(self, entries: Iterable[Entry], write: Callable[[Vector], W]) -> Derived[W]:
        """What follows from live records in offset order, none below `live_position`; changes nothing.

        A vector is written as soon as it is computed, and a record read just before: what they are made of is
        still in the processor's caches then, which saves a tenth.
        """
        live = self._held.versions - self._behind
        vectors, changes, overlays = self._compute(live, self._published, entries, write)
        return Derived(vectors, [*self._definitions(), *changes], overlays)

    def derive_past(
        self, entries: Iterable[Entry], write: Callable[[Vector], W], reached: int | None
    ) -> Derived[W]:
        """What follows from records below the live position, none below `past_position`; changes nothing.

        `reached` is that position when these are the last ones: then what was behind joins the live versions.
        """
        vectors, changes, overlays = self._compute(self._behind, self.version, entries, write)
        settles = reached is not None or not self._behind
        cut = None if reached is None or self._published == self.version else self._cut(reached)
        at = min((overlay.position for _, overlay in overlays), default=0)
        generation = settled(self._wanted) if settles else self._generation(at)
        removed = [(key, None) for key in self._held.to_remove(MOST_TOMBSTONES)]
        changes = [*self._definitions(), *changes, *self._recorded(cut), *removed]
        return Derived(vectors, changes, overlays, generation, settles, cut)

    def apply(self, derived: Derived[W]) -> None:
        """Take over what was derived, once it is committed."""
        for state, overlay in derived.overlays:
            self._held.merge(state, overlay)
            self._live_position = max(self._live_position, state.position)
        self._held.defined |= self._held.versions
        for key, value in derived.changes:
            if value is None:
                self._held.obsolete.pop(key, None)
        if derived.settles:
            self._settle()

    def _is_behind(self, version: int, position: int) -> bool:
        """Offsets without records let the live position run ahead of what there was to see."""
        if version in (self._published, *self._caught_up):
            return False
        seen, published = self._held.states[version].position, self._held.states.get(self._published)
        return seen < position and (seen == 0 or published is None or seen != published.position)

    def _generation(self, replayed: int) -> str:
        return str(Generation(self._published, self._wanted, replayed if self._behind else None))

    def _position(self, versions: Collection[int]) -> int:
        return self._held.position(versions, self._live_position)

    def _compute(
        self,
        versions: Collection[int],
        published: int,
        entries: Iterable[Entry],
        write: Callable[[Vector], W],
    ) -> tuple[list[W], list[Change], list[tuple[State, Overlay]]]:
        once = entries if len(versions) == 1 else list(entries)
        vectors: list[W] = []
        changes: list[Change] = []
        overlays = []
        for version in sorted(versions):
            state = self._held.states[version]
            overlay = state.begin()
            computed = derive(state.compiled, entries_from(once, state.position), overlay)
            if version != published:
                deque(computed, maxlen=0)
            elif first := self._held.published.get(version):
                vectors = [write(vector) for vector in computed if vector.offset >= first]
            else:
                vectors = list(map(write, computed))
            changes += self._held.changes(version, overlay)
            overlays.append((state, overlay))
        return vectors, changes, overlays

    def _definitions(self) -> Iterator[Change]:
        if self._current.version not in self._held.defined:
            yield definition_key(self._current.version), self._current.definition

    def _cut(self, reached: int) -> int:
        """A published version whose state was lost is given up where its vectors had ended."""
        return max(reached, self._held.published.get(self._published, 0))

    def _recorded(self, cut: int | None) -> Iterator[Change]:
        """Where the newest version's vectors take over; kept for ever, like definitions."""
        if cut is not None:
            yield cut_key(self.version), pack([cut, self._published])

    def _settle(self) -> None:
        """Every version has seen the same: the newest is published, and what nobody needs can go."""
        self._published = self.version
        self._caught_up |= self._behind
        self._behind = frozenset()
        self._committed = settled(self._wanted)
        self._held.keep_only(self._wanted)

    def _restore_definition(self, version: int, definition: bytes | None) -> None:
        """Definitions stay for ever: a version may be deployed again."""
        if definition is None:
            return
        if version == self.version:
            if definition == self._current.definition:
                self._held.defined.add(version)
        elif version in {*self._wanted, self._published} and version not in self._held.states:
            with suppress(UnusablePipelineError):  # it stays unknown, and the task says so
                self._held.states[version] = self._read(version, definition).compiled.new_state(version)
                self._held.defined.add(version)
