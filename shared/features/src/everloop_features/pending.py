"""Records that are remembered: to be joined with their other half, and to be taken back when corrected."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec

from everloop_features.nodes import Key
from everloop_features.packing import FORMAT, StateFormatError

__all__ = [
    "LONG_AGO_US",
    "Added",
    "Block",
    "GroupKey",
    "Horizon",
    "Kept",
    "Pending",
    "Told",
    "pack_records",
    "settled_us",
    "unpack_pending",
]

LONG_AGO_US = -(2**62)

GroupKey = tuple[int, Key]
"""A layout's index and a key in it."""


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An observation: the values that its groups and its labels need. None for one that was withdrawn.

    `place` is one more than the record's offset in the log.
    """

    id: str
    known_us: int
    event_us: int
    place: int
    values: tuple[Any, ...] | None


class Told(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The label in force of an id, and since which place it counts.

    `told_at` is for groups that need the label alone, `joined_at` for those that need the observation too,
    whose values then are `joined`. None: it does not count there, because its observation is still to come or
    was withdrawn.
    """

    id: str
    known_us: int
    event_us: int
    place: int
    told_at: int | None
    joined_at: int | None
    values: tuple[Any, ...]
    joined: tuple[Any, ...] | None


class Horizon(msgspec.Struct, frozen=True, gc=False):
    """What is remembered at a point of the log: what was known, and stands, at or after these."""

    known_us: int
    place: int

    def passed(self, entry: Kept | Told) -> bool:
        """Whether an entry is forgotten."""
        return entry.known_us < self.known_us or entry.place < self.place


class Block:
    """What one transaction added: written once, dropped as a whole when all of it is forgotten."""

    __slots__ = ("_first", "_last", "_newest_us", "_oldest_us", "_settled_us", "kept", "told")

    def __init__(self, kept: list[Kept], told: list[Told]) -> None:
        self.kept, self.told = kept, told
        known = [entry.known_us for entry in kept] + [entry.known_us for entry in told]
        places = [entry.place for entry in (*kept[:1], *kept[-1:])] + [entry.place for entry in told]
        self._oldest_us, self._newest_us = min(known), max(known)
        self._first, self._last = min(places), max(places)
        self._settled_us = {"observations": _newest(kept), "labels": _newest(told)}

    def is_forgotten(self, horizon: Horizon) -> bool:
        """Whether all of its records are forgotten."""
        return self._newest_us < horizon.known_us or self._last < horizon.place

    def settled_us(self, over: str, horizon: Horizon) -> int:
        """The newest event time of its records of a kind that are forgotten."""
        if self._oldest_us >= horizon.known_us and self._first >= horizon.place:
            return LONG_AGO_US
        if self.is_forgotten(horizon):
            return self._settled_us[over]
        return settled_us(self.kept if over == "observations" else self.told, horizon)


def settled_us(entries: Iterable[Kept | Told], horizon: Horizon) -> int:
    """The newest event time of those that are forgotten; long ago if none is."""
    return _newest([entry for entry in entries if horizon.passed(entry)])


def _newest(entries: Sequence[Kept | Told]) -> int:
    return max([entry.event_us for entry in entries], default=LONG_AGO_US)


@dataclass(slots=True)
class Pending:
    """Remembered records by id. Whether one still counts is decided by its own age, never by its block's.

    `earlier` holds older observations of an id (of other sources) that count as well: thousands, where each
    of thousands of sources numbers its records from one. `groups` says which ids touched a group; it is made
    when a correction first asks, since most logs hold none.
    """

    touched: Callable[[Kept | Told], Iterable[GroupKey]]
    observations: dict[str, Kept] = field(default_factory=dict[str, Kept])
    earlier: dict[str, deque[Kept]] = field(default_factory=dict[str, deque[Kept]])
    labels: dict[str, Told] = field(default_factory=dict[str, Told])
    groups: dict[GroupKey, list[str]] | None = None

    def entries(self, record_id: str) -> Iterator[Kept]:
        """All observations of an id, newest first; a withdrawal stands alone."""
        newest = self.observations.get(record_id)
        if newest is not None:
            yield newest
            yield from reversed(self.earlier.get(record_id, ()))

    def observe(self, kept: Kept) -> None:
        """Take an observation, or a withdrawal, in place of all that its id had."""
        self.earlier.pop(kept.id, None)
        self._set(kept)

    def follow(self, kept: Kept) -> None:
        """Take an observation after those that its id has, which count as well."""
        before = self.observations.get(kept.id)
        if before is not None:
            self.earlier.setdefault(kept.id, deque()).append(before)
        self._set(kept)

    def tell(self, told: Told) -> None:
        """Take a label in place of the one that was in force."""
        self.labels[told.id] = told
        if self.groups is not None:
            self._note(told)

    def take(self, kept: list[Kept], told: list[Told]) -> None:
        """Take what a transaction added, in its order."""
        new = {entry.id: entry for entry in kept}
        if self.groups is None and len(new) == len(kept) and self.observations.keys().isdisjoint(new):
            self.observations.update(new)
        else:
            for entry in kept:
                before = self.observations.get(entry.id)
                counts = None not in (entry.values, before and before.values)
                (self.follow if counts else self.observe)(entry)
        for label in told:
            self.tell(label)

    def ids(self, group: GroupKey) -> Iterable[str]:
        """The ids of which a record may count in a group."""
        if self.groups is None:
            self.groups = {}
            earlier = chain.from_iterable(self.earlier.values())
            entries: Iterable[Kept | Told] = chain(earlier, self.observations.values(), self.labels.values())
            for entry in entries:
                self._note(entry)
        return self.groups.get(group, ())

    def forget(self, block: Block) -> None:
        """Drop a block's records, except where a newer block has another of the same id."""
        self.groups = None
        for entry in block.kept:
            earlier = self.earlier.get(entry.id)
            if earlier is not None:
                self._forget_one(entry, earlier)
            elif self.observations.get(entry.id) is entry:
                del self.observations[entry.id]
        for label in block.told:
            if self.labels.get(label.id) is label:
                del self.labels[label.id]

    def _forget_one(self, entry: Kept, earlier: deque[Kept]) -> None:
        if self.observations[entry.id] is entry:
            self.observations[entry.id] = earlier.pop()
        elif entry in earlier:
            earlier.remove(entry)
        if not earlier:
            del self.earlier[entry.id]

    def _set(self, kept: Kept) -> None:
        self.observations[kept.id] = kept
        if self.groups is not None:
            self._note(kept)

    def _note(self, entry: Kept | Told) -> None:
        groups = self.groups
        if groups is not None:
            for group in self.touched(entry):
                groups.setdefault(group, []).append(entry.id)


@dataclass(slots=True)
class Added(Pending):
    """What one transaction adds; `kept` and `told` are its records in their order.

    `replaced` are the ids of which nothing counts that was there before the transaction.
    """

    kept: list[Kept] = field(default_factory=list[Kept])
    told: list[Told] = field(default_factory=list[Told])
    replaced: set[str] = field(default_factory=set[str])

    def __bool__(self) -> bool:
        return bool(self.kept or self.told)

    def add(self, kept: Kept) -> None:
        """Take the first observation of an id that nothing is remembered of."""
        self.kept.append(kept)
        self._set(kept)

    def observe(self, kept: Kept) -> None:
        """Take an observation, or a withdrawal, in place of all that its id had."""
        self.kept.append(kept)
        self.replaced.add(kept.id)
        Pending.observe(self, kept)

    def follow(self, kept: Kept) -> None:
        """Take an observation after those that its id has, which count as well."""
        self.kept.append(kept)
        Pending.follow(self, kept)

    def tell(self, told: Told) -> None:
        """Take a label in place of the one that was in force."""
        Pending.tell(self, told)
        self.told.append(told)

    def pack(self) -> bytes:
        """Their bytes as a block."""
        return pack_records(self.kept, self.told)


def pack_records(kept: list[Kept], told: list[Told]) -> bytes:
    """A block's bytes: `[2, [[id, known_at, event_time, place, values]…], [[id, …]…]]`."""
    return _encoder.encode((FORMAT, kept, told))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[int, list[Kept], list[Told]])


def unpack_pending(packed: bytes) -> tuple[list[Kept], list[Told]]:
    """The inverse of `pack_records`. Raises StateFormatError."""
    try:
        number, kept, told = _decoder.decode(packed)
    except msgspec.DecodeError as error:
        raise StateFormatError(f"remembered records cannot be read: {error}") from error
    if number != FORMAT or not (kept or told):
        raise StateFormatError(f"remembered records have the unknown format {number}")
    return kept, told
