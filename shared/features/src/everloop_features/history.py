"""A log partition replayed page by page, in memory that its state bounds and not its length."""

from collections.abc import Mapping, Sequence
from typing import Any

from everloop_features.compiler import Compiled
from everloop_features.nodes import Value
from everloop_features.records import LogRecord
from everloop_features.replay import Vector, derive

__all__ = ["PartitionReplay"]


class PartitionReplay:
    """What one partition's log says after the records so far; begin with its first one."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._state = compiled.new_state(version=1)

    def advance(self, records: Sequence[tuple[int, LogRecord]]) -> list[Vector]:
        """Take the next records, (offset, record) in order; their vectors, as the stream computed them."""
        overlay = self._state.begin()
        vectors = list(derive(self._compiled, records, overlay))
        self._state.merge(overlay)
        return vectors

    def vector(self, fields: Mapping[str, Any], event_time_us: int) -> list[Value]:
        """The values of an observation with these fields that came next; it leaves no trace."""
        return self._compiled.vector(fields, event_time_us, self._state)
