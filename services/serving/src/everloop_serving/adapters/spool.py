"""The disk queue of events: segments of frames, each with its length and checksum.

A frame is 4 bytes length, 4 bytes CRC-32 (both little-endian) and a MessagePack array. A process writes only
segments of its own; a segment that ends within a frame (the machine lost power) is read up to there.
"""

import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from everloop_serving.application.prediction_log import Numbered

__all__ = ["DiskSpool"]

_SEGMENT_BYTES = 8 << 20
_HEAD = struct.Struct("<II")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Segment:
    path: Path
    size: int


class DiskSpool:
    """Appends at the end, reads at the beginning. Used by one task at a time."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit = limit_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Numbered).decode
        paths = sorted(folder.glob("*.spool"))
        self._segments = deque(_Segment(path, path.stat().st_size) for path in paths)
        self._number = int(paths[-1].stem) + 1 if paths else 0
        self._own: _Segment | None = None
        self._read: deque[Numbered] = deque()  # of the oldest segment, not dropped yet
        self._reading: Path | None = None

    @property
    def size_bytes(self) -> int:
        """What the segments take."""
        return sum(segment.size for segment in self._segments)

    def append(self, events: Sequence[Numbered]) -> int:
        """Store events and wait for the disk; the number stored, fewer when there is no more room."""
        frames, room = [], self._limit - self.size_bytes
        for event in events:
            payload = self._encode(event)
            room -= _HEAD.size + len(payload)
            if room < 0:
                break
            frames.append(_HEAD.pack(len(payload), zlib.crc32(payload)) + payload)
        return len(frames) if not frames or self._write(b"".join(frames)) else 0

    def _write(self, data: bytes) -> bool:
        """Write to this process's newest segment, all or nothing."""
        segment = self._open_segment()
        try:
            with segment.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            _log.error("the spool %s cannot be written: %s", segment.path, error.strerror)
            self._cut(segment)
            return False
        segment.size += len(data)
        return True

    def _open_segment(self) -> _Segment:
        full = self._own is not None and self._own.size >= _SEGMENT_BYTES
        if self._own is None or full or self._own.path == self._reading:
            self._own = _Segment(self._folder / f"{self._number:012d}.spool", 0)
            self._number += 1
            self._segments.append(self._own)
        return self._own

    def _cut(self, segment: _Segment) -> None:
        """Take back what a failed write left."""
        try:
            os.truncate(segment.path, segment.size)
        except OSError:
            self._own = None  # what follows goes to a new segment; the torn end is skipped when read

    def peek(self, limit: int) -> list[Numbered]:
        """The oldest events, of one segment."""
        if not self._read and self._segments:
            self._reading = self._segments[0].path
            self._read.extend(self._frames(self._reading))
        return [self._read[index] for index in range(min(limit, len(self._read)))]

    def drop(self, count: int) -> None:
        """Forget the oldest `count` events; a segment without any left is deleted."""
        for _ in range(count):
            self._read.popleft()
        if self._reading is not None and not self._read:
            self._segments.popleft().path.unlink(missing_ok=True)
            if self._own is not None and self._own.path == self._reading:
                self._own = None
            self._reading = None

    def _frames(self, path: Path) -> Iterator[Numbered]:
        data = path.read_bytes() if path.exists() else b""
        at = 0
        while at + _HEAD.size <= len(data):
            length, checksum = _HEAD.unpack_from(data, at)
            payload = data[at + _HEAD.size : at + _HEAD.size + length]
            if len(payload) < length or zlib.crc32(payload) != checksum:
                break
            try:
                yield self._decode(payload)
            except msgspec.DecodeError:
                break
            at += _HEAD.size + length
        if at < len(data):
            _log.error("%s is damaged from byte %d on; the events before it are kept", path, at)
