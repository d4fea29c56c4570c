"""The audit trail of a pipeline: each entry carries the SHA-256 of the one before, so an edit shows."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from everloop_schemas import canonical

__all__ = ["GENESIS", "AuditEntry", "Deed", "append", "first_broken"]

GENESIS = "0" * 64
"""What the first entry of a chain names as its predecessor."""


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing that was done: by whom, to which model version if to one, and JSON evidence."""

    pipeline: str
    actor: str
    action: str
    model_version: int | None = None
    details: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A deed in its place in the chain. `at` is wall clock: when the registry did it."""

    deed: Deed
    sequence: int
    at: datetime
    previous_sha256: str
    sha256: str


def append(last: AuditEntry | None, deed: Deed, at: datetime) -> AuditEntry:
    """The entry that follows `last` in the chain of its pipeline."""
    sequence, previous = (1, GENESIS) if last is None else (last.sequence + 1, last.sha256)
    entry = AuditEntry(deed=deed, sequence=sequence, at=at, previous_sha256=previous, sha256="")
    return replace(entry, sha256=_digest(entry))


def first_broken(entries: Iterable[AuditEntry]) -> int | None:
    """The sequence number of the first entry that was changed, removed or inserted; None when none was.

    `entries` is one pipeline's whole chain in order of sequence. A cut tail is seen only by comparing with a
    copy of the newest digest kept elsewhere.
    """
    previous, expected = GENESIS, 1
    for entry in entries:
        in_place = entry.sequence == expected and entry.previous_sha256 == previous
        if not in_place or _digest(entry) != entry.sha256:
            return expected
        previous, expected = entry.sha256, expected + 1
    return None


def _digest(entry: AuditEntry) -> str:
    content = {
        "action": entry.deed.action,
        "actor": entry.deed.actor,
        "at": entry.at.isoformat(),
        "details": entry.deed.details,
        "model_version": entry.deed.model_version,
        "pipeline": entry.deed.pipeline,
        "previous_sha256": entry.previous_sha256,
        "sequence": entry.sequence,
    }
    return hashlib.sha256(canonical.dumps(content)).hexdigest()
