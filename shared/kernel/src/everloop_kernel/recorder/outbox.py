"""The outbox table: what is decided and not yet published.

Ids must follow the order of commits: the relay remembers the last id it has published, so a lower one that
appears later would be lost. Therefore a transaction writes its events as its last act, under a lock that it
holds for just that long.
"""

import base64
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

__all__ = ["Entry", "append", "channel", "delete_up_to", "head", "identity", "pending"]

PAGE_ROWS: Final = 500
PAGE_BYTES: Final = 8 << 20
"""What one Kafka transaction of the relay holds at most (one larger event goes alone)."""

_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('everloop-outbox-order:' || $1, 0))"
_INSERT: Final = "INSERT INTO outbox (topic, partition, key, value, headers) VALUES ($1, $2, $3, $4, $5)"
_SIZES: Final = """
SELECT id, coalesce(octet_length(value), 0) + octet_length(headers) AS bytes
FROM outbox WHERE id > $1 ORDER BY id LIMIT $2
"""
_ROWS: Final = """
SELECT id, topic, partition, key, value, headers FROM outbox WHERE id > $1 AND id <= $2 ORDER BY id
"""


class Entry(NamedTuple):
    """One event to publish. Without a partition, Kafka's hash of the key decides."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Row(NamedTuple):
    """An entry with its place in the outbox."""

    id: int
    entry: Entry


def channel(service: str) -> str:
    """The NOTIFY channel that wakes the relay."""
    return f"everloop_outbox_{service}"


async def append(connection: Any, service: str, entries: Sequence[Entry]) -> None:
    """Write events in order and wake the relay when the transaction commits."""
    await connection.execute(_LOCK, service)
    rows = [(entry.topic, entry.partition, entry.key, entry.value, _pack(entry.headers)) for entry in entries]
    await connection.executemany(_INSERT, rows)
    await connection.execute("SELECT pg_notify($1, '')", channel(service))


async def head(connection: Any, after: int) -> list[Row]:
    """The oldest events above the id `after`, limited by rows and bytes."""
    last, total = None, 0
    for size in await connection.fetch(_SIZES, after, PAGE_ROWS):
        total += size["bytes"]
        if last is not None and total > PAGE_BYTES:
            break
        last = size["id"]
    if last is None:
        return []
    rows = await connection.fetch(_ROWS, after, last)
    return [
        Row(
            row["id"],
            Entry(row["topic"], row["partition"], row["key"], row["value"], _unpack(row["headers"])),
        )
        for row in rows
    ]


async def delete_up_to(connection: Any, last: int) -> None:
    """Forget what is published."""
    await connection.execute("DELETE FROM outbox WHERE id <= $1", last)


async def pending(connection: Any) -> tuple[int, float]:
    """How many events wait, and the age of the oldest in seconds."""
    row = await connection.fetchrow(
        "SELECT count(*) AS events, coalesce(extract(epoch FROM now() - min(created_at)), 0) AS age"
        " FROM outbox"
    )
    return row["events"], float(row["age"])


async def identity(connection: Any) -> str:
    """Which outbox this is; a database made anew has another."""
    return str(await connection.fetchval("SELECT id FROM outbox_identity"))


def _pack(headers: Sequence[tuple[str, bytes | None]]) -> bytes:
    packed = [[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers]
    return json.dumps(packed).encode()


def _unpack(packed: bytes) -> list[tuple[str, bytes | None]]:
    return [(name, None if value is None else base64.b64decode(value)) for name, value in json.loads(packed)]
