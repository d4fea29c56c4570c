"""What records add, kept apart from the state they are added to, until a transaction has committed."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from everloop_features.layout import GroupLayout
from everloop_features.nodes import Group, Key
from everloop_features.packing import CLOCK, SEPARATOR, block_key, group_prefix, pack, pack_key
from everloop_features.pending import Pending

if TYPE_CHECKING:
    from everloop_features.state import State

__all__ = ["Overlay"]

SWEEPS_PER_RETENTION = 4


class Overlay:
    """A state and what a batch adds to it: reads fall through, writes stay here.

    Nothing depends on how records are cut into batches: groups expire at fixed points of the log
    (whenever the highest event time passes a multiple of a quarter of their retention), pending records by
    their own age.
    """

    def __init__(self, base: "State") -> None:
        self._base = base
        self._functions = base.compiled.functions
        self._joins = base.compiled.joins_labels
        self.tables: list[dict[Key, Group | None]] = [{} for _ in base.tables]
        self._packed: list[dict[Key, bytes | None]] | None = None
        self.pending = Pending()
        self.event_clock_us = base.event_clock_us
        self.known_clock_us = base.known_clock_us
        self.position = base.position
        self._next_sweep_us = self._sweep_after(self.event_clock_us)

    @property
    def clock(self) -> tuple[int, int, int]:
        """Highest event time and `known_at` seen (µs), and the log offset up to which records are in here."""
        return self.event_clock_us, self.known_clock_us, self.position

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
            width = self._base.layouts[index].width
            group = [column[:] for column in below] if below else [[] for _ in range(width)]
            table[key] = group
        return group

    def observe(
        self, record_id: str, fields: Mapping[str, Any], event_time_us: int, known_at_us: int
    ) -> None:
        """Add an observation; its own vector must have been computed before."""
        self._advance(event_time_us, known_at_us)
        self._functions.observe(fields, event_time_us, self)
        if self._joins:
            self._keep(record_id, self._functions.keep(fields, event_time_us), known_at_us)

    def absorb_label(
        self, record_id: str, fields: Mapping[str, Any], event_time_us: int, known_at_us: int
    ) -> None:
        """Add a label, joined with its observation's fields by id; it waits if it came first."""
        self._advance(event_time_us, known_at_us)
        self._functions.absorb(fields, event_time_us, self)
        if not self._joins:
            return
        told = self._functions.tell(fields, event_time_us)
        kept = self._waiting_observation(record_id)
        if kept is None:
            self.pending.add_label(record_id, (known_at_us, event_time_us, told))
        else:
            self._functions.absorb_joined(told, kept, event_time_us, self)

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """What the state topic must be told: keys in ascending order, None for a tombstone."""
        prefix = self._base.prefix
        changed = [(prefix + key, value) for key, value in self._group_changes()]
        if self.pending:
            changed.append((prefix + block_key(self._base.next_block), self.pending.pack()))
        gone = self._base.expired_blocks(self.known_clock_us)
        changed.extend((prefix + block_key(number), None) for number in gone)
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

    def _keep(self, record_id: str, values: tuple[Any, ...], known_at_us: int) -> None:
        seen = self._waiting_observation(record_id) is not None
        self.pending.observations[record_id] = (known_at_us, values)
        if seen:
            return
        oldest = self.known_clock_us - self._base.compiled.pending_us
        for labels in (self._base.pending.labels.get(record_id, ()), self.pending.labels.get(record_id, ())):
            for label_known_us, label_time_us, told in labels:
                if label_known_us >= oldest:
                    self._functions.absorb_joined(told, values, label_time_us, self)

    def _waiting_observation(self, record_id: str) -> tuple[Any, ...] | None:
        kept = self.pending.observations.get(record_id) or self._base.pending.observations.get(record_id)
        too_old = kept is None or kept[0] < self.known_clock_us - self._base.compiled.pending_us
        return None if kept is None or too_old else kept[1]

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
