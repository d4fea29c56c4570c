"""The offsets in Postgres: read, and compared and set, so that who lost a partition cannot write."""

from typing import Any

from everloop_kernel.errors import Fenced

__all__ = ["advance", "claim"]

# An upsert and not a SELECT: it waits for a former owner's open transaction, and creates the row.
_CLAIM = """
INSERT INTO consumer_offsets (consumer_group, topic, partition, next) VALUES ($1, $2, $3, 0)
ON CONFLICT (consumer_group, topic, partition) DO UPDATE SET next = consumer_offsets.next
RETURNING next
"""
_ADVANCE = """
UPDATE consumer_offsets SET next = $5
WHERE consumer_group = $1 AND topic = $2 AND partition = $3 AND next = $4
"""


async def claim(connection: Any, group: str, topic: str, partition: int) -> int:
    """The partition's next offset, with its row locked until the transaction ends."""
    following: int = await connection.fetchval(_CLAIM, group, topic, partition)
    return following


async def advance(
    connection: Any, group: str, topic: str, partition: int, *, known: int, following: int
) -> None:
    """Move the next offset from `known` to `following`; raises Fenced when somebody else has moved it."""
    status = await connection.execute(_ADVANCE, group, topic, partition, known, following)
    if status != "UPDATE 1":
        raise Fenced(
            f"another member of {group} has written {topic}-{partition} beyond offset {known}; "
            "this one restarts and reads where that one is"
        )
