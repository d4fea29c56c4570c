"""What is remembered of a log partition at a place in it: committed records and those of a batch."""

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from everloop_features.nodes import Key
from everloop_features.pending import Added, Horizon, Kept, Told, settled_us

if TYPE_CHECKING:
    from everloop_features.state import State

__all__ = ["Remembered"]


class Remembered:
    """Reads fall through to the state, writes go to `added`.

    `settled_us` is the newest event time in blocks that were dropped: of observations, and of labels.
    """

    def __init__(self, base: "State") -> None:
        self._base = base
        self._old = base.pending
        self.added = Added(base.compiled.contributions.touched)
        self.settled_us = dict(base.settled_us)

    def entries(self, record_id: str, horizon: Horizon) -> Iterator[Kept]:
        """The observations of an id that still count, newest first, or its withdrawal."""
        old = () if record_id in self.added.replaced else self._old.entries(record_id)
        entries = chain(self.added.entries(record_id), old)
        return (entry for entry in entries if not horizon.passed(entry))

    def label(self, record_id: str, horizon: Horizon) -> Told | None:
        """The label in force of an id."""
        told = self.added.labels.get(record_id) or self._old.labels.get(record_id)
        return None if told is None or horizon.passed(told) else told

    def in_group(self, index: int, key: Key, horizon: Horizon) -> Iterator[Kept | Told]:
        """Every record that may count in a group; some do not."""
        group = index, key
        over = self._base.layouts[index].over
        for record_id in dict.fromkeys((*self._old.ids(group), *self.added.ids(group))):
            if over == "observations":
                yield from reversed(tuple(self.entries(record_id, horizon)))
            elif (told := self.label(record_id, horizon)) is not None:
                yield told

    def settled(self, over: str, horizon: Horizon) -> int:
        """The newest event time of all records of a kind that were forgotten; long ago if none was."""
        blocks = [block.settled_us(over, horizon) for block in self._base.blocks.values()]
        mine = settled_us(self.added.kept if over == "observations" else self.added.told, horizon)
        return max(self.settled_us[over], mine, *blocks)

    def expired_blocks(self, horizon: Horizon) -> list[int]:
        """The blocks that can be dropped, once it is noted what they held."""
        gone = self._base.expired_blocks(horizon)
        for block in map(self._base.blocks.__getitem__, gone):
            for over, known in self.settled_us.items():
                self.settled_us[over] = max(known, block.settled_us(over, horizon))
        return gone
