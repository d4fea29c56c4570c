"""Applies migrations in a process of its own.

`python -m everloop_kernel.alembic_process SERVICE NAME=FOLDER…`. Alembic reads revisions from
Python files, so each SQL file gets a generated one in a temporary folder.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import await_only

from everloop_kernel.errors import one_line
from everloop_kernel.migration_files import revision
from everloop_kernel.settings import PostgresSettings

__all__ = ["main"]

_REVISION: Final = '''"""{title}"""
from pathlib import Path
from alembic import op
from everloop_kernel.alembic_process import execute_script
revision = {revision!r}
down_revision = {down!r}


def upgrade() -> None:
    execute_script(op.get_bind(), Path({path!r}).read_text(encoding="utf-8"))
'''


def execute_script(connection: Connection, script: str) -> None:
    """Run several statements at once, which only the driver's simple protocol can."""
    driver: Any = connection.connection.driver_connection
    await_only(driver.execute(script))


def generate(folders: Mapping[str, Path], into: Path) -> None:
    """Write one revision a SQL file; each folder is a chain of its own."""
    for name, folder in folders.items():
        down = None
        for file in sorted(folder.glob("*.sql")):
            current = revision(name, file)
            source = _REVISION.format(title=file.stem, revision=current, down=down, path=str(file.resolve()))
            (into / f"{current}.py").write_text(source, encoding="utf-8")
            down = current


def upgrade(connection: Connection, service: str, scripts: ScriptDirectory) -> None:
    """Apply what is missing, in the caller's transaction, one process at a time."""
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
        {"name": f"everloop-migrate:{service}"},
    )
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{service}"'))
    connection.execute(text(f'SET LOCAL search_path TO "{service}"'))

    def missing(applied: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("heads", applied)  # noqa: SLF001  (what alembic's own command calls)

    with EnvironmentContext(Config(), scripts, fn=missing) as context:
        context.configure(connection=connection, version_table_schema=service, transactional_ddl=True)
        context.run_migrations()


async def migrate(service: str, folders: Mapping[str, Path]) -> None:
    """Apply the files of all folders to the schema `service`."""
    dsn = PostgresSettings().dsn

    async def connect(**_options: Any) -> Any:
        return await asyncpg.connect(dsn)  # a DSN that asyncpg takes need not be one of SQLAlchemy's

    with tempfile.TemporaryDirectory() as versions:
        generate(folders, Path(versions))
        scripts = ScriptDirectory(versions, version_locations=[versions])
        engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(upgrade, service, scripts)
        finally:
            await engine.dispose()


def main(arguments: Sequence[str]) -> int:
    """Exit code 0, or 1 with the reason as the last line on standard error."""
    service, *pairs = arguments
    folders = {name: Path(folder) for name, _, folder in (pair.partition("=") for pair in pairs)}
    try:
        asyncio.run(migrate(service, folders))
    except Exception as error:  # noqa: BLE001  (whatever it is, the parent shows this line)
        sys.stderr.write(f"{one_line(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
