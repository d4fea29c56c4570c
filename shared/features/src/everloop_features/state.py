"""One log partition's feature state, in memory."""

from collections.abc import Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from everloop_features.nodes import Group, Key
from everloop_features.overlay import Overlay
from everloop_features.packing import (
    CLOCK,
    DEFINITION,
    PENDING,
    SEPARATOR,
    SETTLED,
    StateFormatError,
    block_key,
    group_prefix,
    pack,
    pack_key,
    split_key,
    unpack_formatted,
    unpack_key,
)
from everloop_features.pending import (
    LONG_AGO_US,
    Block,
    Horizon,
    Kept,
    Pending,
    Told,
    pack_records,
    unpack_pending,
)
from everloop_features.store import GroupStore

if TYPE_CHECKING:
    from everloop_features.compiler import Compiled

__all__ = ["State", "StateReader"]


class StateReader(Protocol):
    """What a vector is computed from."""

    def find(self, index: int, key: Key) -> Group | None:
        """The group of a key in the layout of that index; None if no record has touched it."""
        ...


class State:
    """Committed state of one pipeline version.

    A stream task adds a batch to `begin()`, publishes the overlay's changes, and merges it after the commit.
    Serving only loads: the state of all partitions may go into one, since keys contain the partition key.
    """

    def __init__(self, compiled: "Compiled", version: int) -> None:
        self.compiled = compiled
        self.version = version
        self.layouts = compiled.layouts
        self.prefix = f"v{version}".encode() + SEPARATOR
        self.tables = [GroupStore(layout) for layout in compiled.layouts]
        self._in_use = [store.unpacked for store in self.tables]
        self.pending = Pending(compiled.contributions.touched)
        self.blocks: dict[int, Block] = {}
        self.next_block = 0
        self.event_clock_us = self.known_clock_us = LONG_AGO_US
        self.settled_us = {"observations": LONG_AGO_US, "labels": LONG_AGO_US}
        """The newest event time of records that were forgotten: of what lies later, all is remembered."""
        self.position = 0
        self._by_prefix = {group_prefix(layout): layout for layout in compiled.layouts}

    @property
    def clock(self) -> tuple[int, int, int]:
        """Highest event time and `known_at` seen (µs), and the log offset up to which records are in here."""
        return self.event_clock_us, self.known_clock_us, self.position

    def find(self, index: int, key: Key) -> Group | None:
        """The group of a key, to be read only. Raises StateFormatError."""
        return self._in_use[index].get(key) or self.tables[index].get(key)

    def begin(self) -> Overlay:
        """A place for what a batch adds."""
        return Overlay(self)

    def merge(self, overlay: Overlay) -> None:
        """Take over an overlay, after its changes have been committed."""
        for mine, theirs, packed in zip(self.tables, overlay.tables, overlay.packed(), strict=True):
            for key, group in theirs.items():
                value = packed[key]
                if group is None or value is None:
                    mine.drop(key)
                else:
                    mine.put(key, group, value)
        gone = overlay.remembered.expired_blocks(overlay.horizon)
        self.event_clock_us, self.known_clock_us, self.position = overlay.clock
        self.settled_us = dict(overlay.remembered.settled_us)
        if overlay.pending:
            self._add_block(self.next_block, overlay.pending.kept, overlay.pending.told)
        for number in gone:
            self.pending.forget(self.blocks.pop(number))

    def dump(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry of the state topic that this state is."""
        for layout, table in zip(self.layouts, self.tables, strict=True):
            prefix = self.prefix + group_prefix(layout) + SEPARATOR
            yield from ((prefix + pack_key(key), packed) for key, packed in table.packed())
        for number, block in self.blocks.items():
            yield self.prefix + block_key(number), pack_records(block.kept, block.told)
        if max(self.settled_us.values()) > LONG_AGO_US:
            yield self.prefix + SETTLED, pack(self.settled_us.values())
        yield self.prefix + CLOCK, pack(self.clock)

    def load(self, key: bytes, value: bytes | None) -> bool:
        """Restore one entry of the state topic; None removes it. False if it belongs to another version.

        Raises StateFormatError for bytes that this version cannot have written.
        """
        if not key.startswith(self.prefix):
            return False
        kind, rest = split_key(key)
        try:
            self._load(kind, rest, value)
        except (TypeError, ValueError) as error:
            raise StateFormatError(f"the state at {key!r} cannot be read: {error}") from error
        return True

    def expired_blocks(self, horizon: Horizon) -> list[int]:
        """Blocks of which nothing is remembered any more, as far as they are the oldest."""
        oldest = takewhile(lambda item: item[1].is_forgotten(horizon), self.blocks.items())
        return [number for number, _ in oldest]

    def _load(self, kind: bytes, rest: bytes, value: bytes | None) -> None:
        layout = self._by_prefix.get(kind)
        if kind == CLOCK:
            self._load_clock(value)
        elif kind == SETTLED:
            self._load_settled(value)
        elif kind == PENDING:
            self._load_block(int.from_bytes(rest, "big"), value)
        elif kind == DEFINITION:
            return
        elif layout is None:
            raise StateFormatError(f"{kind!r} is no part of this pipeline version's state")
        elif value is None:
            self.tables[layout.index].drop(unpack_key(rest))
        else:
            self.tables[layout.index].load(unpack_key(rest), value)

    def _load_clock(self, value: bytes | None) -> None:
        clock = [LONG_AGO_US, LONG_AGO_US, 0] if value is None else unpack_formatted(value)
        self.event_clock_us, self.known_clock_us, self.position = clock

    def _load_settled(self, value: bytes | None) -> None:
        settled = [LONG_AGO_US, LONG_AGO_US] if value is None else unpack_formatted(value)
        self.settled_us = dict(zip(self.settled_us, settled, strict=True))

    def _load_block(self, number: int, value: bytes | None) -> None:
        records = None if value is None else unpack_pending(value)
        if number in self.blocks:
            self.pending.forget(self.blocks.pop(number))
        if records is not None:
            self._add_block(number, *records)

    def _add_block(self, number: int, kept: list[Kept], told: list[Told]) -> None:
        self.pending.take(kept, told)
        self.blocks[number] = Block(kept, told)
        self.next_block = max(self.next_block, number + 1)
