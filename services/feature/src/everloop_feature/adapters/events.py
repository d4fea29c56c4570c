"""`VectorComputed` as Kafka records, at the speed of the stream."""

from collections.abc import Callable, Mapping
from datetime import datetime

import msgspec
from everloop_features import Value, Vector
from everloop_kernel.stream import Output
from everloop_schemas.events import VectorComputed
from everloop_schemas.topics import TOPICS

__all__ = ["VectorWriter"]

Header = tuple[str, bytes]


class _VectorComputed(msgspec.Struct, gc=False):
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
        self._topic = TOPICS[VectorComputed.topic].topic_for(pipeline)
        self._before: Header = ("ce_specversion", b"1.0")
        self._after: tuple[Header, ...] = (
            ("ce_source", f"everloop-feature/{pipeline}".encode()),
            ("ce_type", VectorComputed.type_name().encode()),
            ("content-type", b"application/json"),
        )
        self._encode: Callable[[object], bytes] = msgspec.json.Encoder().encode

    def writing(self, keys: Mapping[int, bytes | None]) -> Callable[[Vector], Output]:
        """What writes a vector's event, with its CloudEvents headers; `keys` are the log's, by offset.

        The id is the place in the log (docs/decisions/0009): unique within the source, the same in a replay.
        """
        version, partition, topic, encode = self._version, self._partition, self._topic, self._encode
        before, after = self._before, self._after
        identify = (f"v{version}-{partition}-%d".encode()).__mod__

        def write(vector: Vector) -> Output:
            offset = vector.offset
            event = _VectorComputed(
                vector.id, version, partition, offset, vector.event_time, vector.known_at, vector.values
            )
            headers = [before, ("ce_id", identify(offset)), *after]
            return _made(Output, (topic, partition, keys[offset], encode(event), headers))

        return write


_made = tuple.__new__  # a named tuple's own constructor is Python: half a microsecond a record
