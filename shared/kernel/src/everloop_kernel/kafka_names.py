r"""Batches of records whose header names need not be UTF-8: no such byte may stop a consumer.

Kafka's protocol says that a header's name is UTF-8, the broker does not look, and aiokafka raises in the
middle of a fetch: whoever may write to a topic could stop everybody who reads it. Here such a name is read
with its odd bytes escaped (`\xff`). Batches without one are read as fast as ever.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.record.default_records import _DefaultRecordBatchPy, _DefaultRecordPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

__all__ = ["ReadableRecords"]

_LENGTH_AT = 8
_HEAD_BYTES = 12


class ReadableRecords:
    """What a fetch delivers of one partition, in place of aiokafka's `MemoryRecords`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._records = MemoryRecords(data)
        self._position = 0

    def size_in_bytes(self) -> int:
        """As `MemoryRecords`."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """As `MemoryRecords`."""
        return bool(self._records.has_next())

    def next_batch(self) -> Any:
        """As `MemoryRecords`; a batch that aiokafka cannot read is read here."""
        begin = self._position
        length = int.from_bytes(self._data[begin + _LENGTH_AT : begin + _HEAD_BYTES], "big")
        self._position = begin + _HEAD_BYTES + length
        return _Batch(self._records.next_batch(), self._data, begin, self._position)


class _Batch:
    """A batch of aiokafka's, but for the reading of its records."""

    def __init__(self, batch: Any, data: bytes, begin: int, end: int) -> None:
        self._batch, self._data, self._begin, self._end = batch, data, begin, end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except UnicodeDecodeError:
            return iter(list(_AnyNames(bytearray(self._data[self._begin : self._end]))))


class _AnyNames(_DefaultRecordBatchPy):  # type: ignore[misc]
    """aiokafka's own reading of a batch in Python, with names of any bytes."""

    _pos: int

    def _read_msg(self, decode_varint: Any = decode_varint) -> Any:
        length, begin = decode_varint(self._buffer, self._pos)
        attributes, position = decode_varint(self._buffer, begin)
        del attributes
        later, position = decode_varint(self._buffer, position)
        offset, position = decode_varint(self._buffer, position)
        key, position = self._bytes(position)
        value, position = self._bytes(position)
        headers = self._headers(position)
        self._pos = begin + length
        appended = self.timestamp_type == self.LOG_APPEND_TIME
        timestamp = self.max_timestamp if appended else self.first_timestamp + later
        return _DefaultRecordPy(
            self.base_offset + offset, timestamp, self.timestamp_type, key, value, headers
        )

    def _bytes(self, position: int) -> tuple[bytes | None, int]:
        """Bytes behind their length; a negative length is null."""
        length, position = decode_varint(self._buffer, position)
        if length < 0:
            return None, position
        return bytes(self._buffer[position : position + length]), position + length

    def _headers(self, position: int) -> list[tuple[str, bytes | None]]:
        count, position = decode_varint(self._buffer, position)
        found: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            name, position = self._bytes(position)
            value, position = self._bytes(position)
            found.append(((name or b"").decode("utf-8", "backslashreplace"), value))
        return found
