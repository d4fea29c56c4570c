"""Keeps a chatty library from flooding the log: one line a kind in a while, with the count of the rest.

A broker that is away for 20 seconds makes its clients write thousands of equal lines; the one that says
something new drowns in them.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["FloodGate"]

_MOST_KINDS: Final = 500
_RETRIES: Final = (
    "retrying",
    "Will retry",
    "Group Coordinator Request failed",
    "Marking the coordinator dead",
    "marking coordinator dead",
)
"""How a library speaks of what it tries again by itself, whatever level it gives to that."""


@dataclass(slots=True)
class _Kind:
    """One kind of line: when it was last written (monotonic s), and what was left out since."""

    begun: float
    seen: float
    written: float | None = None
    left_out: int = 0


class FloodGate(logging.Filter):
    """Lets one line a kind through per `seconds`; a kind is a logger, a level and a message's template.

    What a library tries again by itself is nobody's business until it has gone on for `patience_seconds`:
    Kafka refuses so whenever a transaction begins before the last one has settled, and until its own topics
    exist.

    Args:
        loggers: the loggers, with all below them, that are held back; others pass untouched.
        seconds: the pause between two lines of a kind.
        patience_seconds: for how long a retry may go on unmentioned.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        loggers: Sequence[str],
        *,
        seconds: float = 15.0,
        patience_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._loggers = tuple(loggers)
        self._seconds = seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the line; one that follows others left out says how many they were."""
        if not self._is_held_back(record.name):
            return True
        template = str(record.msg)
        kind = self._kind((record.name, record.levelno, template))
        kind.seen = self._clock()
        if not self._is_due(kind, patient=any(words in template for words in _RETRIES)):
            kind.left_out += 1
            return False
        kind.written = kind.seen
        if kind.left_out:
            record.msg = f"{record.getMessage()} (and {kind.left_out} lines like it before, left out)"
            record.args = None
            kind.left_out = 0
        return True

    def _is_held_back(self, name: str) -> bool:
        return any(name == logger or name.startswith(f"{logger}.") for logger in self._loggers)

    def _kind(self, key: tuple[str, int, str]) -> _Kind:
        """What is known of a kind; one that has been quiet for a while begins anew."""
        now, found = self._clock(), self._kinds.get(key)
        if found is None or now - found.seen > self._seconds:
            if len(self._kinds) >= _MOST_KINDS:
                self._kinds.clear()
            found = _Kind(begun=now, seen=now, left_out=found.left_out if found and found.written else 0)
            self._kinds[key] = found
        return found

    def _is_due(self, kind: _Kind, *, patient: bool) -> bool:
        if patient and kind.seen - kind.begun < self._patience_seconds:
            return False
        return kind.written is None or kind.seen - kind.written >= self._seconds
