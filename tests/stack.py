"""The Kafka and the PostgreSQL that a whole test run shares: one of each, however many pytest workers.

The first worker that asks starts a keeper process, which starts both and stops them when pytest's main
process is gone, however it went. The others find the addresses in a file.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from everloop.embedded.children import last_lines
from everloop.embedded.kafka import Kafka
from everloop.embedded.postgres import Postgres
from everloop.errors import EverloopError

FOLDER_VARIABLE = "EVERLOOP_TEST_STACK_FOLDER"
OWNER_VARIABLE = "EVERLOOP_TEST_STACK_OWNER"
_START_SECONDS = 180.0


@dataclass(frozen=True)
class Addresses:
    """Where the shared servers are."""

    keeper_pid: int
    bootstrap_servers: str
    dsn: str


@dataclass(frozen=True)
class KafkaAddress:
    bootstrap_servers: str


@dataclass(frozen=True)
class Database:
    """A database of one test module alone."""

    dsn: str


def unique(prefix: str) -> str:
    """A name that no other test of this run takes; fit for topics, groups and pipelines."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def shared_stack() -> Addresses:
    """Start the servers if this is the first call in the run; two seconds then, none later."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _read(folder)
        return known or _start_keeper(folder)


def stop_shared_stack(folder: Path, patience_seconds: float = 30.0) -> None:
    """Stop the servers, if any test asked for them, and wait until they are gone."""
    addresses = _read(folder)
    if addresses is None:
        return
    try:
        keeper = psutil.Process(addresses.keeper_pid)
        keeper.send_signal(signal.SIGTERM)
        keeper.wait(patience_seconds)
    except psutil.NoSuchProcess:
        return


def _read(folder: Path) -> Addresses | None:
    path = folder / "addresses.json"
    return Addresses(**json.loads(path.read_text())) if path.exists() else None


def _start_keeper(folder: Path) -> Addresses:
    log = folder / "keeper.log"
    command = [sys.executable, __file__, os.environ[OWNER_VARIABLE], str(folder)]
    with log.open("ab") as output:
        keeper = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    deadline = time.monotonic() + _START_SECONDS
    while (addresses := _read(folder)) is None:
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the test run's Kafka and PostgreSQL did not start:\n{last_lines(log, 30)}")
        time.sleep(0.02)
    return addresses


def _keep(owner_pid: int, folder: Path) -> None:
    """Start both, say where they are, and stop them at SIGTERM or when the owner is gone."""
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    threading.Thread(target=_watch, args=(owner_pid, over), daemon=True).start()
    kafka = Kafka(folder / "kafka", port=0)
    postgres = Postgres(folder / "postgres", port=0)
    with ThreadPoolExecutor(2) as pool:
        try:
            list(pool.map(lambda server: server.start(), (kafka, postgres)))
            _write(folder, Addresses(os.getpid(), kafka.bootstrap_servers, postgres.dsn))
            over.wait()
        finally:
            list(pool.map(lambda server: server.stop(), (kafka, postgres)))
    if not psutil.pid_exists(owner_pid):  # it was killed, and cannot clean up
        shutil.rmtree(folder, ignore_errors=True)


def _watch(owner_pid: int, over: threading.Event) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(owner_pid).wait()
    over.set()


def _write(folder: Path, addresses: Addresses) -> None:
    partial = folder / "addresses.json.new"
    partial.write_text(json.dumps(asdict(addresses)))
    partial.rename(folder / "addresses.json")


if __name__ == "__main__":
    try:
        _keep(int(sys.argv[1]), Path(sys.argv[2]))
    except EverloopError as error:
        sys.exit(str(error))
