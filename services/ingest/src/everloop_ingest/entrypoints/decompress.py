"""Compressed bodies, unpacked piece by piece: however much they unpack to, little of it is in memory.

Input is fed in slices so small that, by the format, each unpacks to 4 MiB at most. A body that as a whole
grows more than a thousandfold is refused: nobody's records do.
"""

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Final, Literal, Protocol

import zstandard
from everloop_kernel.http import Problem

__all__ = ["Coding", "decompressed"]

Coding = Literal["identity", "gzip", "zstd"]

_GZIP_SLICE: Final = 4096
"""DEFLATE makes 1032 bytes of one."""
_ZSTD_SLICE: Final = 128
"""A block of four bytes unpacks to 128 KiB."""
_ZSTD_WINDOW_BYTES: Final = 8 << 20
"""The largest window that RFC 8878 asks decoders to support."""
_GZIP_WRAPPED: Final = 31
_PART_BYTES: Final = 256 << 10
_MOST_GROWTH: Final = 1000
_ALWAYS_ALLOWED: Final = 16 << 20


class _Frame(Protocol):
    """One gzip member or zstd frame, as zlib and zstandard both give it."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


async def decompressed(pieces: AsyncIterator[bytes], coding: Coding) -> AsyncIterator[bytes]:
    """The body without its compression; raises `Problem` 400 for what is none, 413 for a bomb."""
    if coding == "identity":
        async for piece in pieces:
            yield piece
        return
    unpacker = _Unpacker(coding)
    slice_bytes = _GZIP_SLICE if coding == "gzip" else _ZSTD_SLICE
    try:
        async for piece in pieces:
            for unpacked in _unpacked(unpacker, piece, slice_bytes):
                yield unpacked
    except (zlib.error, zstandard.ZstdError) as error:
        raise Problem(400, "Malformed body", f"The body is no valid {coding}: {error}.") from error
    if not unpacker.complete:
        raise Problem(400, "Malformed body", f"The {coding} data ends too early.")


def _unpacked(unpacker: "_Unpacker", piece: bytes, slice_bytes: int) -> Iterator[bytes]:
    """What a piece unpacks to, in parts of a size that is worth looking at."""
    found: list[bytes] = []
    size = 0
    for first in range(0, len(piece), slice_bytes):
        found.append(unpacker.feed(piece[first : first + slice_bytes]))
        size += len(found[-1])
        if size >= _PART_BYTES:
            yield b"".join(found)
            found, size = [], 0
    if size:
        yield b"".join(found)


class _Unpacker:
    """Frames, one after the other: both formats allow several."""

    def __init__(self, coding: Coding) -> None:
        self._coding = coding
        self._frame: _Frame | None = None
        self._read = 0
        self._written = 0

    def feed(self, piece: bytes) -> bytes:
        """What a slice unpacks to."""
        self._read += len(piece)
        found = []
        while piece:
            if self._frame is None or self._frame.eof:
                self._frame = self._fresh()
            found.append(self._frame.decompress(piece))
            piece = self._frame.unused_data if self._frame.eof else b""
        unpacked = found[0] if len(found) == 1 else b"".join(found)
        self._written += len(unpacked)
        if self._written > _ALWAYS_ALLOWED + _MOST_GROWTH * self._read:
            raise Problem(
                413, "Body too large", f"The {self._coding} data unpacks to far more than its size."
            )
        return unpacked

    def _fresh(self) -> _Frame:
        if self._coding == "gzip":
            return zlib.decompressobj(_GZIP_WRAPPED)
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()

    @property
    def complete(self) -> bool:
        """Whether the last frame has ended."""
        return self._frame is not None and self._frame.eof
