"""A service's schema: plain SQL files, applied in order by Alembic.

An author puts `NNNN_what_it_does.sql` files into the folder `everloop_<service>/migrations/`, such as

    0001_create_runs.sql
    0002_index_runs_by_pipeline.sql

and calls `await migrate(dsn, service)` before `open_pool`. Each file may hold several statements and runs
with the service's schema as its search path, so names need no prefix. A released file never changes; a
mistake is mended by the next one. The kernel's own tables (consumer_offsets, outbox) come the same way,
from this package.

All of it is one transaction under an advisory lock: two instances may start at once, and a failing file
leaves the schema as it was. Alembic and SQLAlchemy run in a child process, so that the service does not
keep them in memory, and only when a file is new.
"""

import asyncio
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

from everloop_kernel.errors import ConfigurationError
from everloop_kernel.migration_files import head
from everloop_kernel.recorder.pool import connect

__all__ = ["migrate"]

_KERNEL_FILES: Final = Path(__file__).parent / "migrations"
_APPLIED: Final = "SELECT version_num FROM alembic_version"

_log = logging.getLogger(__name__)


async def migrate(dsn: str, service: str, directory: Path | None = None) -> None:
    """Bring the schema `service` up to date; `directory` is where its files are, if not in its package.

    Raises ConfigurationError: no database, a file that fails, or a schema newer than this code.
    """
    folders = {"kernel": _KERNEL_FILES, service: directory or _package_files(service)}
    wanted = {head(name, folder) for name, folder in folders.items()} - {None}
    if await _applied(dsn, service) == wanted:
        return
    await _run_alembic(dsn, service, folders)
    _log.info("the schema %s is up to date", service)


def _package_files(service: str) -> Path:
    found = importlib.util.find_spec(f"everloop_{service}")
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(f"everloop_{service} is not installed", "Install the service's distribution")
    return Path(found.submodule_search_locations[0]) / "migrations"


async def _applied(dsn: str, service: str) -> set[str]:
    connection: Any = await connect(dsn, service)
    try:
        if await connection.fetchval("SELECT to_regclass($1)", f"{service}.alembic_version") is None:
            return set()
        return {row["version_num"] for row in await connection.fetch(_APPLIED)}
    finally:
        await connection.close()


async def _run_alembic(dsn: str, service: str, folders: dict[str, Path]) -> None:
    arguments = [f"{name}={folder}" for name, folder in folders.items()]
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "everloop_kernel.alembic_process",
        service,
        *arguments,
        env={**os.environ, "EVERLOOP_POSTGRES_DSN": dsn},  # not an argument: it may hold a password
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await child.communicate()
    if child.returncode:
        lines = complaint.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise ConfigurationError(
            f"the schema {service} cannot be migrated: {lines[-1]}", "Correct the migration"
        )
