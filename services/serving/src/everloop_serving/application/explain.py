"""The use case of explaining: exact, in a thread beside the event loop, never more than can be done soon."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from everloop_schemas.events import Value

from everloop_serving.application.loaded_model import LoadedModel
from everloop_serving.domain.explanations import Explanation
from everloop_serving.domain.tensors import InvalidInput

__all__ = ["MOST_EXPLAINED_ROWS", "Busy", "Explanations"]

MOST_EXPLAINED_ROWS = 64
"""Rows of one request: a quarter of a second for 300 trees of 63 leaves."""
_MOST_WAITING_ROWS = 256
_ROWS_AT_ONCE = 4
"""What is done for a caller who has gone meanwhile."""


class Busy(Exception):  # noqa: N818  (a state, not a defect)
    """More was asked for than can be done soon."""


class Explanations:
    """Explains answers, one request after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")
        self._waiting = 0

    @contextmanager
    def place(self, rows: int) -> Iterator[None]:
        """Holds a place for so many rows while they are answered and explained.

        Raises:
            InvalidInput: never, for so many.
            Busy: not now.
        """
        if rows > MOST_EXPLAINED_ROWS:
            raise InvalidInput(f"{rows} rows in one request; at most {MOST_EXPLAINED_ROWS} are explained")
        if self._waiting + rows > _MOST_WAITING_ROWS:
            raise Busy(f"{self._waiting} rows wait to be explained; ask again, or without an explanation")
        self._waiting += rows
        try:
            yield
        finally:
            self._waiting -= rows

    async def of(self, model: LoadedModel, vectors: Sequence[list[Value]]) -> list[Explanation]:
        """An explanation of each vector."""
        loop = asyncio.get_running_loop()
        found: list[Explanation] = []
        for first in range(0, len(vectors), _ROWS_AT_ONCE):
            part = vectors[first : first + _ROWS_AT_ONCE]
            found += await loop.run_in_executor(self._thread, model.explain, part)
        return found
