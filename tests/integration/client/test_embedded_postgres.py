"""The embedded database keeps what it committed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from everloop.embedded import Postgres, launch
from everloop.errors import EverloopError

pytestmark = pytest.mark.integration


@pytest.fixture
def server(tmp_path: Path):
    with Postgres(tmp_path / "postgres", port=0) as server:
        yield server


async def test_committed_rows_survive_kill_nine(server: Postgres):
    """Models, runs and offsets live there."""
    connection = await asyncpg.connect(server.dsn)
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept SELECT generate_series(1, 100)")
    server.child.signal(signal.SIGKILL)
    server.child.wait(5)
    connection.terminate()
    server.start()
    connection = await asyncpg.connect(server.dsn)
    assert await connection.fetchval("SELECT count(*) FROM kept") == 100
    await connection.close()


async def test_the_role_behind_the_port_is_no_superuser(server: Postgres):
    """Whoever reaches the loopback port must not be able to run programs as the server's user."""
    connection = await asyncpg.connect(server.dsn)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")
    await connection.close()
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asyncpg.connect(server.dsn.replace("everloop@", "postgres@"))


def test_it_works_below_a_folder_that_only_we_may_enter(tmp_path: Path):
    """A home folder is closed to others; as root, the server runs as somebody else."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    with Postgres(private / "postgres", port=0) as server:
        assert server.query("SELECT 1") == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as somebody else")
def test_as_root_its_programs_may_lie_below_a_closed_folder(tmp_path: Path):
    """An environment in root's own home is closed to the account that the server runs as."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "program").write_text("#!/bin/sh\n")
    (private / "program").chmod(0o755)
    look = f"import os; print(os.geteuid() != 0, os.access('{private}/program', os.X_OK))"
    launcher = [sys.executable, "-I", launch.__file__, str(os.getpid()), "9", "nobody"]
    command = [*launcher, sys.executable, "-c", look]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [
        "True",
        "True",
    ]


def test_a_long_path_gets_a_short_socket(tmp_path: Path):
    """A Unix socket's path has at most 107 bytes, and a data folder may be deep."""
    with Postgres(tmp_path / ("deep" * 25) / "postgres", port=0) as server:
        assert server.query("SHOW fsync") == "on"


def test_another_release_s_cluster_is_refused_by_name(server: Postgres):
    """An upgrade must not start on data that it cannot read."""
    server.stop()
    (server.data_dir / "cluster" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EverloopError, match="was written by PostgreSQL 16, and this is PostgreSQL 18"):
        server.start()
