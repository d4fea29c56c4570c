"""The stack's data folder: who holds it, what runs in it, and what an earlier life left behind."""

import contextlib
import fcntl
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from io import TextIOWrapper
from pathlib import Path

import psutil

from everloop.errors import EverloopError

__all__ = ["STACK_VARIABLE", "DataFolder", "ProcessRecord", "StackRecord"]

STACK_VARIABLE = "EVERLOOP_STACK_FOLDER"
"""In the environment of every service, so that also what a service started itself can be found again."""

_START_BYTES = 64 * 2**20
"""Of room for a start: PostgreSQL's first files, Kafka's, logs."""


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One supervised process, as stack.json tells it to other commands."""

    pid: int | None
    restarts: int
    log: str


@dataclass(frozen=True, slots=True)
class StackRecord:
    """stack.json: a running stack, as other commands see it."""

    pid: int
    ready: bool
    addresses: dict[str, str]
    processes: dict[str, ProcessRecord] = field(default_factory=dict)


class DataFolder:
    """One folder, held by one stack at a time: the lock goes with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: TextIOWrapper | None = None

    @property
    def logs(self) -> Path:
        """Where each process writes its log."""
        return self.path / "logs"

    def hold(self) -> None:
        """Take the folder, or raise an error that names the stack that has it."""
        self.make()
        lock = (self.path / "lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise self._held() from error
        self._lock = lock
        (self.path / "stack.json").unlink(missing_ok=True)  # a killed stack's

    def make(self) -> None:
        """Make the folder and that of its logs, or raise an error that says what to do."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            (self.path / "lock").open("a").close()
        except OSError as error:
            raise EverloopError(
                f"{self.path} cannot be used: {error.strerror}.", "Choose a --data-dir that you may write to."
            ) from error

    def require_free(self) -> None:
        """Raise an error that names the stack that has the folder, if one has."""
        if self.is_held():
            raise self._held()

    def require_space(self) -> None:
        """Refuse a start that would end, halfway, on a full disk."""
        free = shutil.disk_usage(self.path).free
        if free < _START_BYTES:
            raise EverloopError(
                f"{self.path} has {free >> 20} MiB left; a start needs {_START_BYTES >> 20}.",
                "Free space there, or choose another --data-dir. What is stored stays intact.",
            )

    def release(self) -> None:
        """Let the next stack have it."""
        (self.path / "stack.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, record: StackRecord) -> None:
        """Tell other commands what runs; a reader sees the old record or the new one, never half of one."""
        partial = self.path / "stack.json.new"
        partial.write_text(json.dumps(asdict(record), indent=1))
        partial.replace(self.path / "stack.json")

    def read(self) -> StackRecord | None:
        """The stack that runs in this folder, if one does."""
        try:
            saved = json.loads((self.path / "stack.json").read_text())
            processes = {name: ProcessRecord(**entry) for name, entry in saved["processes"].items()}
            record = StackRecord(int(saved["pid"]), bool(saved["ready"]), saved["addresses"], processes)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if self.is_held() else None

    def end_leftovers(self) -> list[int]:
        """Kill what services of an earlier stack left behind; returns the pids."""
        left = [process for process in psutil.process_iter() if self._belongs_here(process)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        return [process.pid for process in left]

    def _belongs_here(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return process.environ().get(STACK_VARIABLE) == str(self.path)
        except (psutil.Error, OSError):
            return False

    def is_held(self) -> bool:
        """Whether a stack has the folder: one that runs, or is about to."""
        try:
            with (self.path / "lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _held(self) -> EverloopError:
        record = self.read()
        who = f" (pid {record.pid})" if record else ""
        return EverloopError(
            f"A stack is already running in {self.path}{who}.",
            "`everloop status` shows it and `everloop down` stops it; another one needs another --data-dir "
            "and other ports.",
        )
