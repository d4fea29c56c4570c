"""Ids that follow from what caused them, so that a replay produces the same ones."""

import uuid

__all__ = ["NAMESPACE", "derived_id"]

NAMESPACE = uuid.UUID("3a5d6f0e-6b1f-5d0c-9a46-0f2f7c1f4e11")
"""The root of every derived id; changing it would make every replay look like new events."""


def derived_id(source_id: str, kind: str) -> str:
    """The id of the `kind` that follows from `source_id`: the same pair always gives the same id.

    Example:
        >>> derived_id("a1", "run") == derived_id("a1", "run") != derived_id("a1", "dataset")
        True
    """
    return str(uuid.uuid5(NAMESPACE, f"{kind}\x1f{source_id}"))
