"""What records add, kept apart from the state they are added to, until a transaction has committed."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from everloop_features.corrections import corrected
from everloop_features.layout import GroupLayout
from everloop_features.nodes import Group, Key
from everloop_features.packing import CLOCK, SEPARATOR, SETTLED, block_key, group_prefix, pack, pack_key
from everloop_features.pending import LONG_AGO_US, Horizon, Kept, Told
from everloop_features.remembered import Remembered

if TYPE_CHECKING:
    from everloop_features.state import State

__all__ = ["Overlay"]

SWEEPS_PER_RETENTION = 4


class Overlay:
    """A state and what a batch adds to it: reads fall through, writes stay here.

    Nothing depends on how records are cut into batches: groups expire at fixed points of the log
    (whenever the highest event time passes a multiple of a quarter of their retention), remembered records by
    their own age.
    """

    def __init__(self, base: "State") -> None:
        self._base = base
        self._compiled = base.compiled
        self._functions = base.compiled.functions
        self._keeps, self._over_labels = base.compiled.keeps_observations, base.compiled.over_labels
        self.tables: list[dict[Key, Group | None]] = [{} for _ in base.tables]
        self._packed: list[dict[Key, bytes | None]] | None = None
        self.remembered = Remembered(base)
        self.pending = self.remembered.added
        self._old, self._new = base.pending.observations, self.pending.observations
        self.event_clock_us = base.event_clock_us
        self.known_clock_us = base.known_clock_us
        self.position = base.position
        self._next_sweep_us = self._sweep_after(self.event_clock_us)

    @property
    def clock(self) -> tuple[int, int, int]:
        """What `State.clock` says, with this batch."""
        return self.event_clock_us, self.known_clock_us, self.position

    @property
    def horizon(self) -> Horizon:
        """What is remembered now."""
        return self._compiled.horizon(self.known_clock_us, self.position)

    def find(self, index: int, key: Key) -> Group | None:
        """The group of a key, to be read only."""
        table = self.tables[index]
        return table[key] if key in table else self._base.tables[index].get(key)

    def writable(self, index: int, key: Key) -> Group:
        """The group of a key, this overlay's own copy; made empty if there is none."""
        table = self.tables[index]
        group = table.get(key)
        if group is None:
            below = None if key in table else self._base.tables[index].get(key)
            group = [column[:] for column in below] if below else self._base.layouts[index].empty()
            table[key] = group
        return group

    def observe(
        self, record_id: str, fields: Mapping[str, Any], event_time_us: int, known_at_us: int
    ) -> None:
        """Add an observation; its own vector must have been computed before."""
        self._advance(event_time_us, known_at_us)
        values = self._functions.observe(fields, event_time_us, self)
        kept = Kept(record_id, known_at_us, event_time_us, self.position, values)
        if record_id not in self._old and record_id not in self._new:
            was_there = False
            if self._keeps:
                self.pending.add(kept)
        else:
            was_there = self._observe_again(kept)
        if self._over_labels and not was_there:
            label = self.remembered.label(record_id, self.horizon)
            if label is not None:
                self._count(label)

    def _observe_again(self, kept: Kept) -> bool:
        """Remember an observation of an id that came before; whether an earlier one still counts."""
        before = self._newest(kept.id)
        was_there = before is not None and before.values is not None
        if was_there:
            self.pending.follow(kept)
        elif self._keeps or before is not None:
            self.pending.observe(kept)
        return was_there

    def absorb_label(
        self, record_id: str, fields: Mapping[str, Any], event_time_us: int, known_at_us: int
    ) -> None:
        """Add a label, joined with its observation's fields by id; it waits if it came first.

        It takes the place of an earlier label of the id, and counts for nothing if that was known later.
        """
        self._advance(event_time_us, known_at_us)
        if not self._over_labels:
            return
        told = self._functions.tell(fields, event_time_us)
        label = Told(record_id, known_at_us, event_time_us, self.position, None, None, told, None)
        before = self.remembered.label(record_id, self.horizon)
        if before is not None:
            if known_at_us < before.known_us:
                return
            self.pending.tell(label)
            self._take_back([before])
        self._count(label)

    def retract(self, record_id: str, known_at_us: int) -> None:
        """Withdraw an id's observations and label; both count again when the observation comes again."""
        self._packed = None
        self.known_clock_us = max(self.known_clock_us, known_at_us)
        entries = reversed(tuple(self.remembered.entries(record_id, self.horizon)))
        label = self.remembered.label(record_id, self.horizon)
        gone: list[Kept | Told] = [*entries, *([label] if label else [])]
        known_us = max([known_at_us, *(entry.known_us for entry in gone)])
        self.pending.observe(Kept(record_id, known_us, LONG_AGO_US, self.position, None))
        if label is not None:
            self.pending.tell(replace(label, told_at=None, joined_at=None, joined=None))
        self._take_back(gone)

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """What the state topic must be told: keys in ascending order, None for a tombstone."""
        prefix = self._base.prefix
        changed = [(prefix + key, value) for key, value in self._group_changes()]
        if self.pending:
            changed.append((prefix + block_key(self._base.next_block), self.pending.pack()))
        gone = self.remembered.expired_blocks(self.horizon)
        changed.extend((prefix + block_key(number), None) for number in gone)
        settled_us = self.remembered.settled_us
        if settled_us != self._base.settled_us:
            changed.append((prefix + SETTLED, pack(settled_us.values())))
        if self.clock != self._base.clock:
            changed.append((prefix + CLOCK, pack(self.clock)))
        return sorted(changed, key=lambda change: change[0])

    def packed(self) -> list[dict[Key, bytes | None]]:
        """The bytes of each changed group, None for one that is gone; made once."""
        if self._packed is None:
            self._packed = [
                {key: None if group is None else store.format.pack(group) for key, group in table.items()}
                for store, table in zip(self._base.tables, self.tables, strict=True)
            ]
        return self._packed

    def _group_changes(self) -> Iterator[tuple[bytes, bytes | None]]:
        for layout, packed in zip(self._base.layouts, self.packed(), strict=True):
            prefix = group_prefix(layout) + SEPARATOR
            for key, value in packed.items():
                yield prefix + pack_key(key), value

    def _newest(self, record_id: str) -> Kept | None:
        return next(self.remembered.entries(record_id, self.horizon), None)

    def _count(self, label: Told) -> None:
        """Add a label to what it is not in yet: not at all while its observation is withdrawn."""
        observation = self._newest(label.id)
        told_at, joined_at, joined = label.told_at, label.joined_at, label.joined
        if observation is None or observation.values is not None:
            if told_at is None:
                self._functions.absorb_told(label.values, label.event_us, self)
                told_at = self.position
            if joined_at is None and observation is not None and self._compiled.joins_labels:
                joined_at, joined = self.position, observation.values or ()
                self._functions.absorb_joined(label.values, joined, label.event_us, self)
        self.pending.tell(replace(label, told_at=told_at, joined_at=joined_at, joined=joined))

    def _take_back(self, entries: Iterable[Kept | Told]) -> None:
        """Compute again what entries were in that are no longer remembered as they are here."""
        horizon, contributions = self.horizon, self._compiled.contributions
        for index, key in dict.fromkeys(chain.from_iterable(map(contributions.touched, entries))):
            group = self.find(index, key)
            if group is None:
                continue
            layout = self._base.layouts[index]
            fresh = contributions.group((index, key), self.remembered.in_group(index, key, horizon))
            settled_us = self.remembered.settled(layout.over, horizon)
            self.tables[index][key] = corrected(layout, group, fresh, settled_us)

    def _advance(self, event_time_us: int, known_at_us: int) -> None:
        self._packed = None
        self.known_clock_us = max(self.known_clock_us, known_at_us)
        if event_time_us > self.event_clock_us:
            before, self.event_clock_us = self.event_clock_us, event_time_us
            if event_time_us >= self._next_sweep_us:
                self._sweep(before)

    def _sweep(self, before_us: int) -> None:
        for layout in self._base.layouts:
            step = layout.retention_us // SWEEPS_PER_RETENTION
            if self.event_clock_us // step > before_us // step:
                self._drop_idle(layout)
        self._next_sweep_us = self._sweep_after(self.event_clock_us)

    def _drop_idle(self, layout: GroupLayout) -> None:
        oldest_us = self.event_clock_us - layout.retention_us
        table = self.tables[layout.index]
        idle = [key for key in self._base.tables[layout.index].idle(oldest_us) if key not in table]
        mine = [
            key for key, group in table.items() if group is not None and layout.newest_us(group) < oldest_us
        ]
        table.update(dict.fromkeys((*idle, *mine)))

    def _sweep_after(self, clock_us: int) -> int:
        steps = [layout.retention_us // SWEEPS_PER_RETENTION for layout in self._base.layouts]
        return min(((clock_us // step + 1) * step for step in steps), default=2**63)
