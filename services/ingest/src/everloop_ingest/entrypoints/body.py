"""Reading a request's body: bounded in size and, over all requests, in memory; split into rows."""

from collections.abc import AsyncIterator, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
from everloop_kernel.http import Problem
from everloop_schemas.strict_json import MAX_BYTES

__all__ = [
    "BLOCK_ROWS",
    "Budget",
    "Share",
    "blocks_of",
    "blocks_of_lines",
    "no_records",
    "read_whole",
    "rows_of",
    "too_large",
]

_RAW_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])
BLOCK_ROWS: Final = 500
"""Rows that are checked and published together."""
_TOO_LONG: Final = MAX_BYTES + 1


class Budget:
    """How many bytes of bodies may be in the process at once."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self.used = 0

    def take(self, size: int) -> None:
        """Take `size` bytes, or answer 429."""
        if self.used + size > self._limit:
            raise Problem(
                429,
                "Too many requests",
                "Ingest is busy; send again in a second.",
                headers={"Retry-After": "1"},
            )
        self.used += size

    def share(self, size: int) -> "Share":
        """A request's part, given back at the end of its `with` block."""
        return Share(self, size)


class Share:
    """What one request holds of the budget."""

    __slots__ = ("_budget", "_size")

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget = budget
        self._size = size

    def cover(self, size: int) -> None:
        """Hold at least `size` bytes; raises `Problem` 429."""
        if size > self._size:
            self._budget.take(size - self._size)
            self._size = size

    def __enter__(self) -> Self:
        self._budget.take(self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.used -= self._size


async def read_whole(pieces: AsyncIterator[bytes], limit: int, share: Share) -> bytes:
    """The whole body, at most `limit` bytes; raises 413, and 429 where its length was not announced."""
    found: list[bytes] = []
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise too_large(limit)
        share.cover(size)
        found.append(piece)
    return found[0] if len(found) == 1 else b"".join(found)


def too_large(limit: int) -> Problem:
    """The answer to a body beyond the limit."""
    return Problem(
        413, "Body too large", f"Send at most {limit} bytes at once, in several requests, or as NDJSON."
    )


def rows_of(body: bytes) -> list[bytes]:
    """A body's rows: one object, or the elements of an array; raises 400.

    Rows are not looked into: each is refused or accepted by itself.
    """
    start = body.lstrip()[:1] if body[:1] not in (b"{", b"[") else body[:1]
    rows = _array(body) if start == b"[" else [body] if start else []
    if not rows:
        raise no_records()
    return rows


def no_records() -> Problem:
    """The answer to a body without rows."""
    return Problem(400, "No records", "Send a JSON object, an array of objects, or one object a line.")


def _array(body: bytes) -> list[bytes]:
    try:
        return [bytes(row) for row in _RAW_ROWS.decode(body)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(400, "Malformed JSON", f"The array cannot be read: {error}.") from error


def blocks_of(rows: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Rows in blocks that are published one by one."""
    for first in range(0, len(rows), BLOCK_ROWS):
        yield rows[first : first + BLOCK_ROWS]


async def blocks_of_lines(pieces: AsyncIterator[bytes]) -> AsyncIterator[Sequence[bytes]]:
    """The lines of a body that may have no end, in blocks, as they come; empty lines are left out.

    A line longer than any record may be is cut there: it is refused, and its rest is not held.
    """
    splitter = _Lines()
    async for piece in pieces:
        for block in blocks_of(splitter.feed(piece)):
            yield block
    last = splitter.rest()
    if last:
        yield last


class _Lines:
    """Puts lines together that pieces cut apart."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that end in `piece`."""
        first, *others = piece.split(b"\n")
        self._keep(first)
        if not others:
            return []
        last = others.pop()
        found = [*self.rest(), *[line for line in others if line and not line.isspace()]]
        self._keep(last)
        return found

    def rest(self) -> list[bytes]:
        """The line begun, which has ended."""
        line = b"".join(self._begun)
        self._begun, self._size = [], 0
        return [line] if line and not line.isspace() else []

    def _keep(self, part: bytes) -> None:
        part = part[: max(0, _TOO_LONG - self._size)]
        if part:
            self._begun.append(part)
            self._size += len(part)
