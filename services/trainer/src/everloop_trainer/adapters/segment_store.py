"""From staged rows to segments: a file is registered in the transaction that deletes its staged rows.

One instance writes at a time. After a kill between file and commit the rows are still staged and are written
again, perhaps under another name: a file that no row registers
means nothing, and is removed at the next start.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from everloop_features import compile  # noqa: A004 - the feature language's name for it
from everloop_schemas.events import Cut

from everloop_trainer import metrics
from everloop_trainer.adapters.processes import packed, run_child
from everloop_trainer.adapters.rows import definition_of
from everloop_trainer.domain.job import SegmentFile

__all__ = ["SegmentStore"]

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('everloop-trainer/segments', 0))"
_PATIENCE = "SET LOCAL idle_in_transaction_session_timeout = '120s'"
_DUE = """
SELECT pipeline, kind, version, partition FROM staged
GROUP BY 1, 2, 3, 4 HAVING count(*) >= $1 ORDER BY 1, 2, 3, 4
"""
_NEEDED = """
SELECT DISTINCT pipeline, kind, version, staged.partition
FROM staged JOIN unnest($3::int[], $4::bigint[]) AS cut (partition, next) ON staged.partition = cut.partition
WHERE pipeline = $1 AND version = ANY($2) AND log_offset < cut.next ORDER BY 1, 2, 3, 4
"""
_ROWS = """
SELECT log_offset, label, id, event_time_us, known_at_us, data FROM staged
WHERE pipeline = $1 AND kind = $2 AND version = $3 AND partition = $4 ORDER BY log_offset LIMIT $5
"""
_FORGET = """
DELETE FROM staged WHERE pipeline = $1 AND kind = $2 AND version = $3 AND partition = $4 AND log_offset <= $5
"""
_BELOW = """
SELECT kind, version, partition, first_offset AS first, last_offset AS last, file, sha256 FROM segments
WHERE pipeline = $1 AND version = ANY($2) ORDER BY kind, version, partition, first_offset
"""
_SEGMENT_ROWS = 50_000
"""More staged rows of one partition than this become several files."""


class Pile(NamedTuple):
    """What one segment may hold: rows of one partition and kind."""

    pipeline: str
    kind: str
    version: int
    partition: int

    def file(self, first: int, last: int) -> str:
        """The segment's name under the trainer's root; records of the log belong to no version."""
        version = f"v{self.version}/" if self.version else ""
        return f"segments/{self.pipeline}/{version}{self.kind}/{self.partition}-{first}-{last}.parquet"


class SegmentStore:
    """`application.ports.Storage`; `root` is the trainer's directory."""

    def __init__(self, pool: Any, root: Path, segment_rows: int) -> None:
        self._pool = pool
        self._root = root
        self._segment_rows = segment_rows

    async def write_due(self) -> int:
        """Write segments of piles that are large enough; how many were written."""
        return await self._write(_DUE, self._segment_rows)

    async def segments_below(self, pipeline: str, versions: Collection[int], cut: Cut) -> list[SegmentFile]:
        """Write what is staged below the cut, of the log and of these versions; name every segment below it.

        What arrives meanwhile lies above the cut: waiting for it would never end under live traffic.
        """
        wanted = sorted({0, *versions})
        while await self._write(_NEEDED, pipeline, wanted, list(cut), list(cut.values())):
            pass
        rows = await self._pool.fetch(_BELOW, pipeline, wanted)
        return [SegmentFile(**row) for row in rows if row["first"] < cut.get(row["partition"], 0)]

    async def remove_unregistered(self) -> None:
        """Delete files that a kill left behind."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK)
            known = {row["file"] for row in await connection.fetch("SELECT file FROM segments")}
            await asyncio.to_thread(self._remove_except, known)

    def _remove_except(self, known: set[str]) -> None:
        for path in (self._root / "segments").rglob("*.parquet*"):
            if str(path.relative_to(self._root)) not in known:
                path.unlink()

    async def _write(self, piles_query: str, *arguments: Any) -> int:
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(_LOCK)
            await connection.execute(_PATIENCE)
            piles = [Pile(*row) for row in await connection.fetch(piles_query, *arguments)]
            features = {pile: await _features(connection, pile) for pile in piles}
            ready = [pile for pile in piles if features[pile] is not _UNKNOWN]
            rows = [await connection.fetch(_ROWS, *pile, _SEGMENT_ROWS) for pile in ready]
            if ready:
                await self._write_files(connection, ready, rows, features)
        return len(ready)

    async def _write_files(
        self, connection: Any, piles: Sequence[Pile], rows: Sequence[Any], features: Mapping[Pile, Any]
    ) -> None:
        ranges = [(part[0]["log_offset"], part[-1]["log_offset"]) for part in rows]
        files = [pile.file(*span) for pile, span in zip(piles, ranges, strict=True)]
        wanted = [
            [file, features[pile], [tuple(row) for row in part]]
            for file, pile, part in zip(files, piles, rows, strict=True)
        ]
        answer = await run_child("write_segments", str(self._root), given=packed(wanted))
        for pile, (first, last), file, part, (sha256, size) in zip(
            piles, ranges, files, rows, msgspec.msgpack.decode(answer), strict=True
        ):
            await connection.execute(
                "INSERT INTO segments VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                *pile,
                first,
                last,
                len(part),
                file,
                sha256,
                size,
            )
            await connection.execute(_FORGET, *pile, last)
            metrics.SEGMENTS.labels(pile.pipeline, pile.kind).inc()
            metrics.SEGMENT_ROWS.labels(pile.pipeline, pile.kind).inc(len(part))


_UNKNOWN: list[tuple[str, str]] = []
"""Features of a pipeline version that is not known yet: its vectors stay staged until it is."""


async def _features(connection: Any, pile: Pile) -> list[tuple[str, str]] | None:
    if pile.kind == "records":
        return None
    row = await connection.fetchrow(
        "SELECT * FROM pipelines WHERE pipeline = $1 AND version = $2", pile.pipeline, pile.version
    )
    if row is None:
        return _UNKNOWN
    compiled = compile(definition_of(row).pipeline)
    return _UNKNOWN if isinstance(compiled, list) else list(zip(compiled.names, compiled.types, strict=True))
