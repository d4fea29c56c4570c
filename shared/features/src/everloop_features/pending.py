"""Records that wait for their other half: observations for their labels, and labels that came first."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from everloop_features.packing import pack, unpack_formatted

__all__ = ["Block", "EarlyLabel", "Kept", "Pending", "unpack_pending"]

Kept = tuple[int, tuple[Any, ...]]
"""An observation: its `known_at` and the values that its labels will need."""

EarlyLabel = tuple[int, int, tuple[Any, ...]]
"""A label before its observation: its `known_at`, its event time, its values."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one transaction added: written once, dropped as a whole when all of it is too old."""

    newest_us: int
    observations: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(slots=True)
class Pending:
    """Waiting records by id. Whether one still counts is decided by its own age, never by its block's."""

    observations: dict[str, Kept] = field(default_factory=dict)
    labels: dict[str, list[EarlyLabel]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.observations or self.labels)

    def add_label(self, record_id: str, label: EarlyLabel) -> None:
        """Keep a label that came before its observation."""
        self.labels.setdefault(record_id, []).append(label)

    def update(self, other: "Pending") -> None:
        """Take over what another one holds; it is the newer one."""
        self.observations.update(other.observations)
        for record_id, labels in other.labels.items():
            self.labels.setdefault(record_id, []).extend(labels)

    def block(self) -> Block:
        """What must be known to drop all of this later."""
        return Block(max(self._ages()), tuple(self.observations), tuple(self.labels))

    def forget(self, block: Block, before_us: int) -> None:
        """Drop a block's records, except ids that a newer block holds as well."""
        for record_id in block.observations:
            kept = self.observations.get(record_id)
            if kept is not None and kept[0] < before_us:
                del self.observations[record_id]
        for record_id in block.labels:
            young = [label for label in self.labels.get(record_id, ()) if label[0] >= before_us]
            if young:
                self.labels[record_id] = young
            else:
                self.labels.pop(record_id, None)

    def pack(self) -> bytes:
        """The block's bytes: `[1, [[id, known_at, values]…], [[id, known_at, event_time, values]…]]`."""
        labels = [(key, *label) for key, early in self.labels.items() for label in early]
        return pack([[(key, *kept) for key, kept in self.observations.items()], labels])

    def _ages(self) -> Iterator[int]:
        yield from (kept[0] for kept in self.observations.values())
        yield from (label[0] for early in self.labels.values() for label in early)


def unpack_pending(packed: bytes) -> Pending:
    """The inverse of `Pending.pack`. Raises StateFormatError."""
    observations, labels = unpack_formatted(packed)
    pending = Pending({key: (known_us, tuple(values)) for key, known_us, values in observations})
    for key, known_us, event_us, values in _rows(labels):
        pending.add_label(key, (known_us, event_us, tuple(values)))
    return pending


def _rows(rows: Iterable[Any]) -> Iterator[tuple[str, int, int, list[Any]]]:
    yield from rows
