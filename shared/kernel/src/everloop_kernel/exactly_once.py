"""Was everything that was sent handled exactly once? A ledger of what was sent, compared with what came out.

    ledger = Ledger(path)
    ledger.append(ids)                      # before sending: a crash must not forget what may have been sent
    verdict = check(ledger.read(), await identities(kafka, topic, identify))
    assert verdict.ok, verdict

Duplicates that are sent on purpose are appended twice and must come out once. Poison must come out as dead
letters, once each, and nowhere else.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from aiokafka import ConsumerRecord

from everloop_kernel.kafka import close_quietly
from everloop_kernel.kafka_reading import partitions_of, read_to_end, started_reader
from everloop_kernel.settings import KafkaSettings

__all__ = ["Ledger", "Verdict", "check", "identities"]

_SHOWN = 5


class Ledger:
    """An append-only file of identities, one a line, on the disk before `append` returns."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, identities: Iterable[str]) -> None:
        """Write down what is about to be sent. Raises ValueError for an identity with a line break."""
        lines = list(identities)
        if any("\n" in line for line in lines):
            raise ValueError("an identity is one line")
        with self._path.open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[str]:
        """Everything written down, in order; a last line that a crash cut off was never sent."""
        if not self._path.exists():
            return []
        return self._path.read_bytes().decode().split("\n")[:-1]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What went wrong, by identity; `ok` when nothing did."""

    lost: tuple[str, ...]
    """Sent, and nowhere to be found."""
    doubled: tuple[str, ...]
    """Came out more than once."""
    unexpected: tuple[str, ...]
    """Came out and was never sent, or is poison."""
    not_dead: tuple[str, ...]
    """Poison that is not exactly once among the dead letters."""
    wrongly_dead: tuple[str, ...]
    """Among the dead letters, and no poison."""

    @property
    def ok(self) -> bool:
        """Whether everything was handled exactly once."""
        return not (self.lost or self.doubled or self.unexpected or self.not_dead or self.wrongly_dead)

    def __str__(self) -> str:
        found = {name: getattr(self, name) for name in self.__slots__}
        parts = [f"{len(ids)} {name} ({', '.join(ids[:_SHOWN])})" for name, ids in found.items() if ids]
        return "; ".join(parts) or "everything exactly once"


def check(
    sent: Iterable[str],
    came_out: Iterable[str],
    *,
    poison: Collection[str] = (),
    dead: Iterable[str] = (),
) -> Verdict:
    """Compare what was sent with what came out and what became a dead letter.

    `sent` may name the poison or not; an identity that was sent several times is expected once.

    Example:
        >>> print(check(["a", "b", "b", "c"], ["a", "b", "b", "x"]))
        1 lost (c); 1 doubled (b); 1 unexpected (x)
    """
    spoiled = frozenset(poison)
    expected = frozenset(sent) - spoiled
    out, set_aside = Counter(came_out), Counter(dead)
    return Verdict(
        lost=_sorted(expected - out.keys()),
        doubled=_sorted(name for name, count in out.items() if count > 1),
        unexpected=_sorted(out.keys() - expected),
        not_dead=_sorted(name for name in spoiled if set_aside[name] != 1),
        wrongly_dead=_sorted(set_aside.keys() - spoiled),
    )


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


async def identities(
    kafka: KafkaSettings, topic: str, identify: Callable[[ConsumerRecord], str]
) -> list[str]:
    """The identity of every committed record of a topic, in each partition's order."""
    consumer = await started_reader(kafka)
    try:
        partitions = await partitions_of(consumer, topic)
    finally:
        await close_quietly(consumer)
    return [
        identify(record)
        for partition in partitions
        async for page in read_to_end(kafka, partition)
        for record in page
    ]
