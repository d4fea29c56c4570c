"""What a log partition's state topic holds, in memory: by pipeline version, and what is left of others."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

from everloop_features import Overlay, State, StateFormatError
from everloop_features.packing import CLOCK, position_in

from everloop_feature.domain.rebuild import Rebuild

__all__ = ["Change", "Held"]

Change = tuple[bytes, bytes | None]
"""A key of the state topic and its new value; None removes it."""


@dataclass(slots=True)
class Held:
    """The states of versions that are computed, and keys of versions that nobody needs any more."""

    states: dict[int, State]
    defined: set[int] = field(default_factory=set)
    """Versions whose definition is on the topic."""
    obsolete: dict[bytes, None] = field(default_factory=dict)
    rebuilds: dict[int, Rebuild] = field(default_factory=dict)
    """Versions whose state could not be read: it is computed again from the log."""
    published: dict[int, int] = field(default_factory=dict)
    """By such a version: the log offset below which its vectors are published already."""
    _unreadable: dict[int, dict[bytes, str]] = field(default_factory=dict)
    _reached: dict[int, int] = field(default_factory=dict)

    @property
    def versions(self) -> frozenset[int]:
        """The versions that are computed."""
        return frozenset(self.states)

    @property
    def restorable(self) -> frozenset[int]:
        """Those of them that a restart would find again."""
        return self.versions & self.defined

    def keep_only(self, versions: Collection[int]) -> None:
        """Let the state of all other versions go: their keys are to be removed."""
        for version in self.versions.difference(versions):
            self.obsolete.update((key, None) for key, _ in self.states.pop(version).dump())
            if rebuild := self.rebuilds.pop(version, None):
                self.obsolete.update(dict.fromkeys(rebuild.before))

    def to_remove(self, most: int) -> list[bytes]:
        """The next keys to be removed."""
        return list(islice(self.obsolete, most))

    def position(self, versions: Collection[int], otherwise: int) -> int:
        """The log offset below which each of these versions contains every record."""
        return min((self.states[version].position for version in versions), default=otherwise)

    def load(self, version: int, key: bytes, value: bytes | None) -> None:
        """Take an entry of a version's state; what cannot be read may still be replaced by a later one."""
        unreadable = self._unreadable.setdefault(version, {})
        readable = True
        try:
            self.states[version].load(key, value)
        except StateFormatError as error:
            unreadable[key] = str(error)
            readable = value is None
        if readable:
            unreadable.pop(key, None)
        if key.endswith(CLOCK):
            self._reached[version] = max(self._reached.get(version, 0), position_in(key, value or b""))

    def give_up_unreadable(self) -> None:
        """Begin those states anew that cannot be read, or do not say how far they are."""
        for version, state in list(self.states.items()):
            unreadable = self._unreadable.pop(version, {})
            if state.position == 0 and any(map(len, state.tables)):
                unreadable.setdefault(state.prefix + CLOCK, "the entry that says how far it is is missing")
            if unreadable:
                self._give_up(version, state, unreadable)

    def changes(self, version: int, overlay: Overlay) -> list[Change]:
        """What the topic must be told of a batch; nothing of a state that is not yet what it was."""
        rebuild, state = self.rebuilds.get(version), self.states[version]
        if rebuild is None:
            return overlay.changes()
        return rebuild.changes(state, overlay) if rebuild.is_done(overlay.position) else rebuild.mark(state)

    def merge(self, state: State, overlay: Overlay) -> None:
        """Take over a batch that is committed."""
        state.merge(overlay)
        rebuild = self.rebuilds.get(state.version)
        if rebuild is not None and rebuild.is_done(state.position):
            del self.rebuilds[state.version]
        if state.position >= self.published.get(state.version, 0):
            self.published.pop(state.version, None)

    def _give_up(self, version: int, state: State, unreadable: Mapping[bytes, str]) -> None:
        before = {*unreadable, *(key for key, _ in state.dump())}
        reason = next(iter(unreadable.values()))
        self.rebuilds[version] = Rebuild(reason, before, self._reached.get(version, 0))
        self.states[version] = state.compiled.new_state(version)
