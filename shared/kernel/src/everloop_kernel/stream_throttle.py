"""What replays may take of a process, so that live records do not wait for them."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Throttle"]

_READERS = 4
"""Partitions that are replayed at the same time; others wait for a place, so memory stays bounded."""


class Throttle:
    """Gives the replays of a process turns: one slice at a time, then a rest that belongs to live records.

    `share` (above 0, at most 1) is the part of the time that slices take together, transactions included. It
    is a part of the process, not of a partition: more replays make each of them slower, never the process.
    """

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"the share of replays is {share}: it must be above 0 and at most 1")
        self._share = share
        self._places = asyncio.Semaphore(_READERS)
        self._turn = asyncio.Lock()
        self._rested_at = 0.0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the partitions that are replayed now; waits for one."""
        async with self._places:
            yield

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The time of one slice; waits for its turn, and until the slice before has been rested from."""
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested_at - time.monotonic()))
            yield

    def spent(self, seconds: float) -> None:
        """A slice has taken so long: rest in proportion."""
        self._rested_at = time.monotonic() + seconds * (1 / self._share - 1)
