"""`VectorComputed` as Kafka records, at the speed of the stream."""

from collections.abc import Callable
from datetime import datetime

import msgspec
from everloop_features import Value, Vector
from everloop_schemas.events import VectorComputed
from everloop_schemas.ids import derived_id

__all__ = ["VectorWriter"]

Header = tuple[str, bytes]


class _VectorComputed(msgspec.Struct):
    """The fields of `everloop_schemas.events.VectorComputed`, in its order; a test holds both together."""

    id: str
    pipeline_version: int
    log_partition: int
    log_offset: int
    event_time: datetime
    known_at: datetime
    values: list[Value]


class VectorWriter:
    """Writes the vectors of one pipeline version and log partition."""

    def __init__(self, pipeline: str, version: int, partition: int) -> None:
        self._version = version
        self._partition = partition
        self._kind = f"vector-v{version}"
        self._before: Header = ("ce_specversion", b"1.0")
        self._after: tuple[Header, ...] = (
            ("ce_source", f"everloop-feature/{pipeline}".encode()),
            ("ce_type", VectorComputed.type_name().encode()),
            ("content-type", b"application/json"),
        )
        self._encode: Callable[[object], bytes] = msgspec.json.Encoder().encode

    def write(self, vector: Vector) -> tuple[bytes, list[Header]]:
        """The event's JSON and its CloudEvents headers. The id follows from the record's place in the log."""
        offset, record_id, event_time, known_at, values = vector
        event = _VectorComputed(
            record_id, self._version, self._partition, offset, event_time, known_at, values
        )
        event_id = derived_id(f"{self._partition}-{offset}", self._kind)
        return self._encode(event), [self._before, ("ce_id", event_id.encode()), *self._after]
