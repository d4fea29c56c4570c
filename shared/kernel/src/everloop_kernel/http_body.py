"""A request's body while it arrives: a bounded buffer between the connection and the handler."""

import asyncio
from collections.abc import Callable
from typing import Self

__all__ = ["BodyError", "BodyStream"]


class BodyError(Exception):
    """The rest of the body will not come: it was cut off, malformed or too slow. `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class BodyStream:
    """The pieces of a body, in order: `async for piece in stream`; raises BodyError.

    What nobody takes is held, and the connection stops reading beyond its limit; so the sender waits, and the
    memory does not grow.
    """

    __slots__ = ("_failure", "_on_taken", "_on_wanted", "_pieces", "_waiter", "complete")

    def __init__(self, on_taken: Callable[[int], None], on_wanted: Callable[[], None] | None = None) -> None:
        """`on_taken` hears how many bytes leave; `on_wanted` is called once, before the first wait."""
        self._pieces: list[bytes] = []
        self._failure: BodyError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_taken = on_taken
        self._on_wanted = on_wanted
        self.complete = False
        """Whether the connection has all of it."""

    def __aiter__(self) -> Self:
        """A body is read once."""
        return self

    async def __anext__(self) -> bytes:
        """All that has arrived, when there is something: a chunk a row would otherwise be a wait a row."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self.complete:
                raise StopAsyncIteration
            await self._arrival()
        pieces, self._pieces = self._pieces, []
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._on_taken(len(piece))
        return piece

    async def _arrival(self) -> None:
        if self._on_wanted is not None:
            self._on_wanted()
            self._on_wanted = None
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def feed(self, piece: bytes) -> None:
        """A piece has arrived."""
        self._pieces.append(piece)
        self._wake()

    def finish(self) -> None:
        """All of it has arrived."""
        self.complete = True
        self._wake()

    def fail(self, error: BodyError) -> None:
        """No more will arrive; what did is still given first."""
        if not self.complete and self._failure is None:
            self._failure = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
