"""The groups of one layout, by key: all as bytes, those in use also as the lists that code works on.

Lists of Python numbers take five to ten times the memory of their bytes, and most keys rest most of the time.
"""

from collections.abc import Iterator

from everloop_features.group_format import GroupFormat
from everloop_features.layout import GroupLayout
from everloop_features.nodes import Group, Key

__all__ = ["GroupStore"]

MOST_UNPACKED = 16_384
"""Groups of one layout that are held unpacked; with one more, all are let go and unpacked when next used."""

_TIME_BYTES = 8


class GroupStore:
    """Groups are only read here: a change is made to a copy and put."""

    def __init__(self, layout: GroupLayout) -> None:
        self.format = GroupFormat(layout)
        self._layout = layout
        self._packed: dict[Key, bytes] = {}
        self.unpacked: dict[Key, Group] = {}
        """Groups in use, by key: a shortcut to some of what `get` finds."""

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, key: Key) -> Group | None:
        """A key's group. Raises StateFormatError."""
        group = self.unpacked.get(key)
        if group is None:
            stored = self._packed.get(key)
            if stored is None:
                return None
            group = self.format.unpack(stored[_TIME_BYTES:])
            self._keep(key, group)
        return group

    def put(self, key: Key, group: Group, packed: bytes) -> None:
        """Take over a group and its bytes."""
        self._packed[key] = self._stored(group, packed)
        self._keep(key, group)

    def load(self, key: Key, packed: bytes) -> None:
        """Take bytes of the state topic, checked now and unpacked again at the first use.

        Raises StateFormatError.
        """
        self._packed[key] = self._stored(self.format.unpack(packed), packed)
        self.unpacked.pop(key, None)

    def drop(self, key: Key) -> None:
        """Forget a key, if it is there."""
        self._packed.pop(key, None)
        self.unpacked.pop(key, None)

    def packed(self) -> Iterator[tuple[Key, bytes]]:
        """Every key with its group's bytes."""
        return ((key, stored[_TIME_BYTES:]) for key, stored in self._packed.items())

    def idle(self, before_us: int) -> Iterator[Key]:
        """Keys of which nothing reaches up to an event time, in the order in which they came."""
        for key, stored in self._packed.items():
            if int.from_bytes(stored[:_TIME_BYTES], "big", signed=True) < before_us:
                yield key

    def _stored(self, group: Group, packed: bytes) -> bytes:
        """In front of the bytes stands the time that decides when the group expires."""
        return self._layout.newest_us(group).to_bytes(_TIME_BYTES, "big", signed=True) + packed

    def _keep(self, key: Key, group: Group) -> None:
        if len(self.unpacked) >= MOST_UNPACKED:
            self.unpacked.clear()
        self.unpacked[key] = group
