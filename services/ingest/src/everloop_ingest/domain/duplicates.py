"""Which records a log partition holds already: each (kind, source, id) once, within a horizon."""

from collections import deque
from collections.abc import Iterable

__all__ = ["DuplicateWindow", "identity"]


def identity(kind: str, source: str, record_id: str) -> str:
    """What makes a record the same record. The separator cannot stand in a kind or in an id."""
    return f"{kind[0]}{record_id}\x1f{source}"


class DuplicateWindow:
    """The identities of the last `limit` records of a log partition."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._order: deque[str] = deque()
        self._held: set[str] = set()

    def __contains__(self, record: str) -> bool:
        return record in self._held

    def __len__(self) -> int:
        return len(self._order)

    def resize(self, limit: int) -> None:
        """Change the horizon: the pipeline's file has changed."""
        self._limit = limit
        self._forget()

    def add(self, records: Iterable[str]) -> None:
        """Take records that were accepted, in the log's order."""
        for record in records:
            if record not in self._held:
                self._held.add(record)
                self._order.append(record)
        self._forget()

    def _forget(self) -> None:
        while len(self._order) > self._limit:
            self._held.discard(self._order.popleft())
