"""A service's SQL files become its schema: once, together, whoever starts first."""

import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from everloop_kernel.errors import ConfigurationError
from everloop_kernel.recorder import migrate

pytestmark = pytest.mark.integration


@pytest.fixture
def service(unique) -> str:
    return unique("mig").replace("-", "_")


async def test_files_are_applied_once_in_order(postgres, service, tmp_path: Path):
    """An upgrade must apply the new file only; running an old one again would fail or lose data."""
    (tmp_path / "0001_create.sql").write_text("CREATE TABLE a (n int); INSERT INTO a VALUES (1);")
    await migrate(postgres.dsn, service, tmp_path)
    (tmp_path / "0002_add.sql").write_text("ALTER TABLE a ADD COLUMN m int DEFAULT 7; -- 100% :safe %s\n")
    await migrate(postgres.dsn, service, tmp_path)
    await migrate(postgres.dsn, service, tmp_path)
    assert await _rows(postgres, f"SELECT n, m FROM {service}.a") == [(1, 7)]
    assert await _rows(postgres, f"SELECT count(*) FROM {service}.consumer_offsets") == [(0,)]


async def test_instances_may_start_at_once(postgres, service, tmp_path: Path):
    """Three replicas of a service that start together must not break one another's schema."""
    (tmp_path / "0001_create.sql").write_text("CREATE TABLE a (n int); INSERT INTO a VALUES (1);")
    await asyncio.gather(*(migrate(postgres.dsn, service, tmp_path) for _ in range(3)))
    assert await _rows(postgres, f"SELECT n FROM {service}.a") == [(1,)]


async def test_a_failing_file_changes_nothing(postgres, service, tmp_path: Path):
    """A mistake in the second file must leave the schema as it was, and say what is wrong."""
    (tmp_path / "0001_create.sql").write_text("CREATE TABLE a (n int);")
    (tmp_path / "0002_wrong.sql").write_text("CREATE TABLE b (n int); CREATE TABLE a (n int);")
    with pytest.raises(ConfigurationError, match='relation "a" already exists'):
        await migrate(postgres.dsn, service, tmp_path)
    found = "SELECT count(*) FROM information_schema.tables WHERE table_schema = '" + service + "'"
    assert await _rows(postgres, found) == [(0,)]


async def test_an_unknown_newer_schema_is_refused(postgres, service, tmp_path: Path):
    """An old release must not write into a schema that a newer one has changed."""
    (tmp_path / "0001_create.sql").write_text("CREATE TABLE a (n int);")
    (tmp_path / "0002_add.sql").write_text("ALTER TABLE a ADD COLUMN m int;")
    await migrate(postgres.dsn, service, tmp_path)
    (tmp_path / "0002_add.sql").unlink()
    with pytest.raises(ConfigurationError, match="_0002"):
        await migrate(postgres.dsn, service, tmp_path)


async def test_a_missing_database_is_named(monkeypatch, tmp_path: Path):
    """Without a database the operator must read what to start, not a traceback."""
    monkeypatch.setattr("everloop_kernel.recorder.pool._START_SECONDS", 0.2)
    with pytest.raises(ConfigurationError, match="EVERLOOP_POSTGRES_DSN"):
        await migrate("postgresql://nobody@127.0.0.1:1/none", "svc", tmp_path)


def test_the_service_does_not_load_the_migration_tools():
    """Alembic and SQLAlchemy would cost each service tens of megabytes for its whole life."""
    code = "import sys, everloop_kernel.recorder; print({'alembic', 'sqlalchemy'} & set(sys.modules) or [])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def _rows(postgres, query: str) -> list[tuple]:
    connection = await asyncpg.connect(postgres.dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()
