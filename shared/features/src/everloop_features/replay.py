"""The log of one partition, in order, to vectors: the stream task and every rebuild go through here."""

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from everloop_features.calculation import microseconds
from everloop_features.compiler import Compiled
from everloop_features.nodes import Value
from everloop_features.overlay import Overlay
from everloop_features.records import LogRecord

__all__ = ["Vector", "derive", "replay"]


class Vector(msgspec.Struct, frozen=True, gc=False):
    """The values of one observation, from what the log held before it."""

    offset: int
    id: str
    event_time: datetime
    known_at: datetime
    values: list[Value]


def derive(
    compiled: Compiled, records: Iterable[tuple[int, LogRecord]], overlay: Overlay
) -> Iterator[Vector]:
    """Vectors of one partition's records, (offset, record) in order, adding each record to the overlay.

    A vector sees the records before its own and not its own. Corrections count from their place on: what was
    computed stays computed.
    """
    vector, stateful = compiled.vector, compiled.needs_state
    for offset, record in records:
        overlay.position = offset + 1
        if record.retraction:
            if stateful:
                overlay.retract(record.id, microseconds(record.known_at))
            continue
        event_time_us = microseconds(record.event_time)
        if record.kind == "observation":
            values = vector(record.fields, event_time_us, overlay)
            yield Vector(offset, record.id, record.event_time, record.known_at, values)
            add = overlay.observe
        else:
            add = overlay.absorb_label
        if stateful:
            add(record.id, record.fields, event_time_us, microseconds(record.known_at))


def replay(compiled: Compiled, records: Iterable[tuple[int, LogRecord]]) -> Iterator[Vector]:
    """Vectors of one partition's log from its beginning: what the stream computed, bit for bit."""
    overlay = compiled.new_state(version=1).begin()
    yield from derive(compiled, records, overlay)
