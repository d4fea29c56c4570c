"""Records in a file: each its offset (64 bits) and its value's length (32), little-endian, then it."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["append", "read"]

_HEAD = struct.Struct("<qI")


def append(file: BinaryIO, offset: int, value: bytes) -> None:
    """Write one record."""
    file.write(_HEAD.pack(offset, len(value)) + value)


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every record of a file: offset and value."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            offset, length = _HEAD.unpack(head)
            yield offset, file.read(length)
