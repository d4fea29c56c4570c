"""Judges champions whenever a batch may have finished a day."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

__all__ = ["Judging"]

PAUSE_SECONDS: Final = 1.0
"""Batches come faster than days end."""


class Judging:
    """A component that runs one judgement at a time, after news and at the start."""

    name = "judging"

    def __init__(self, judge: Callable[[], Awaitable[None]]) -> None:
        self._judge = judge
        self._news = asyncio.Event()
        self._stopping = False
        self._news.set()

    def notice(self) -> None:
        """Something was recorded."""
        self._news.set()

    async def run(self) -> None:
        """Judge until stopped."""
        while True:
            await self._news.wait()
            if self._stopping:
                return
            self._news.clear()
            await self._judge()
            await asyncio.sleep(PAUSE_SECONDS)

    def stop(self) -> None:
        """End after the judgement in hand."""
        self._stopping = True
        self._news.set()

    def not_ready(self) -> str | None:
        """It has nothing to wait for."""
        return None
