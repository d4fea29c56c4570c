"""Segments of a run's cut, on real Postgres."""

from pathlib import Path

import pytest
from everloop_kernel.recorder import migrate, open_pool
from everloop_kernel.settings import PostgresSettings
from everloop_trainer.adapters.segment_store import SegmentStore

pytestmark = pytest.mark.integration

STAGE = "INSERT INTO staged VALUES ('p', 'records', 0, 0, $1, true, $2, 0, 0, '{}')"


async def test_rows_above_the_cut_are_left_for_later(postgres, tmp_path: Path, monkeypatch) -> None:
    """A run that waits for what arrives meanwhile never ends under live traffic: no model, ever."""
    monkeypatch.setenv("EVERLOOP_POSTGRES_DSN", postgres.dsn)
    await migrate(postgres.dsn, "trainer")
    pool = await open_pool(PostgresSettings(dsn=postgres.dsn), "trainer")
    try:
        for offset in (10, 11):
            await pool.execute(STAGE, offset, f"r{offset}")
        assert await SegmentStore(pool, tmp_path, 1000).segments_below("p", [], {0: 10}) == []
        assert await pool.fetchval("SELECT count(*) FROM staged") == 2
        found = await SegmentStore(pool, tmp_path, 1000).segments_below("p", [], {0: 11})
        assert [(segment.first, segment.last) for segment in found] == [(10, 11)]
    finally:
        await pool.close()
