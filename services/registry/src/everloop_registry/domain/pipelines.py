"""Versions of a pipeline's definition: a new one only when the definition itself changed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from everloop_schemas import canonical

from everloop_registry.domain.deployment import Refusal

__all__ = ["Definition", "PipelineVersion", "next_version"]

Definition = Mapping[str, Any]
"""A normalised pipeline file, as JSON."""


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """One version of a pipeline's definition, immutable once made. `defined_at` is wall clock."""

    pipeline: str
    version: int
    definition: Definition
    sha256: str
    partitions: int
    defined_at: datetime
    defined_by: str


def next_version(
    current: PipelineVersion | None, definition: Definition, *, defined_at: datetime, defined_by: str
) -> PipelineVersion | Refusal:
    """The version that `definition` is: `current` itself when nothing changed, else the one after it.

    What the placement of the log's records hangs on may not change: the same id must stay on one partition.
    """
    sha256 = hashlib.sha256(canonical.dumps(definition)).hexdigest()
    if current is not None and current.sha256 == sha256:
        return current
    for name in ("partitions", "partition_by"):
        if current is not None and current.definition[name] != definition[name]:
            return _fixed(name, current.definition[name], definition[name])
    return PipelineVersion(
        pipeline=definition["pipeline"],
        version=1 if current is None else current.version + 1,
        definition=definition,
        sha256=sha256,
        partitions=definition["partitions"],
        defined_at=defined_at,
        defined_by=defined_by,
    )


def _fixed(name: str, before: object, after: object) -> Refusal:
    return Refusal(
        f"`{name}` cannot change from {before} to {after}: the log's records would be looked for elsewhere",
        f"keep `{name}: {before}`, or define a pipeline under another name and replay its data",
    )
