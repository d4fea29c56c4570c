"""Decoding the two data events, of which there are hundreds of thousands, in a few microseconds each.

What the platform itself writes is read here; anything else goes through the tolerant, total decoder of
`everloop_schemas.cloudevents`, which reads it or says why not.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import Event, RecordAccepted, Value, VectorComputed
from everloop_schemas.rejected import Rejected

__all__ = ["LOG", "VECTORS", "DataEvents", "Record", "Vector"]

Moment = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class Record(msgspec.Struct, frozen=True):
    """What the trainer keeps of a RecordAccepted."""

    kind: Literal["observation", "label"]
    id: str
    event_time: Moment
    known_at: Moment
    fields: dict[str, Value]
    retraction: bool = False


class Vector(msgspec.Struct, frozen=True):
    """What the trainer keeps of a VectorComputed."""

    id: str
    pipeline_version: Annotated[int, msgspec.Meta(ge=1)]
    log_partition: Count
    log_offset: Count
    event_time: Moment
    known_at: Moment
    values: list[Value]


T = TypeVar("T", Record, Vector)


class DataEvents(Generic[T]):
    """Reads one kind of event."""

    def __init__(self, event: type[Event], kept: type[T]) -> None:
        self.event = event
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kept)
        self._type = event.type_name().encode()

    def read(self, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> T | Rejected:
        """The event's kept part, or why it cannot be read. Never raises."""
        if value is None or not self._ours(dict(headers)):
            return self._read_slowly(value, headers)
        try:
            return self._decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return self._read_slowly(value, headers)

    def _ours(self, headers: dict[str, bytes | None]) -> bool:
        return (
            headers.get("ce_type") == self._type
            and headers.get("ce_specversion") == b"1.0"
            and headers.get("content-type") == b"application/json"
            and bool(headers.get("ce_id") and headers.get("ce_source"))
        )

    def _read_slowly(self, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> T | Rejected:
        event = decode(self.event, value, headers)
        if isinstance(event, Rejected):
            return event
        try:
            return self._decoder.decode(event.model_dump_json())
        except msgspec.DecodeError as error:
            return Rejected("schema", str(error)[:200], "publish what the topic's JSON Schema describes")


LOG = DataEvents(RecordAccepted, Record)
VECTORS = DataEvents(VectorComputed, Vector)
