"""What is committed with a log partition's offset: which version is published, and which are computed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Generation", "published_by", "replayed_to", "settled"]

_BEHIND = re.compile(r"v([1-9][0-9]{0,18})>.*@([0-9]{1,19})")
_SETTLED = re.compile(r"v[1-9][0-9]{0,18}(,v[1-9][0-9]{0,18})*")


@dataclass(frozen=True, slots=True)
class Generation:
    """The version whose vectors are published, the versions that shall be computed, and how far a replay is.

    `v1,v2` when all of these are computed: the newest is published. `v1>v1,v2@400` while the newest replays
    the log and has reached offset 400: until it has caught up, vectors are those of version 1.
    """

    published: int
    wanted: frozenset[int]
    replayed: int | None

    def __str__(self) -> str:
        versions = settled(self.wanted)
        return versions if self.replayed is None else f"v{self.published}>{versions}@{self.replayed}"


def settled(versions: Iterable[int]) -> str:
    """The generation once all versions are computed."""
    return ",".join(f"v{version}" for version in sorted(versions))


def published_by(generation: str) -> int | None:
    """The version whose vectors a committed offset belongs to; None for text that is no generation."""
    if found := _BEHIND.fullmatch(generation):
        return int(found[1])
    if _SETTLED.fullmatch(generation):
        return max(int(version[1:]) for version in generation.split(","))
    return None


def replayed_to(generation: str) -> int | None:
    """The log offset that a committed replay has reached; None without one."""
    found = _BEHIND.fullmatch(generation)
    return int(found[2]) if found else None
