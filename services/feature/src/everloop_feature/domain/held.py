"""What a log partition's state topic holds, in memory: by pipeline version, and what is left of others."""

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import islice

from everloop_features import State

__all__ = ["Held"]


@dataclass(slots=True)
class Held:
    """The states of versions that are computed, and keys of versions that nobody needs any more."""

    states: dict[int, State]
    defined: set[int] = field(default_factory=set)
    """Versions whose definition is on the topic."""
    obsolete: dict[bytes, None] = field(default_factory=dict)

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
            self.obsolete.update(dict.fromkeys(self.states.pop(version).keys()))

    def to_remove(self, most: int) -> list[bytes]:
        """The next keys to be removed."""
        return list(islice(self.obsolete, most))

    def position(self, versions: Collection[int], otherwise: int) -> int:
        """The log offset below which each of these versions contains every record."""
        return min((self.states[version].position for version in versions), default=otherwise)
