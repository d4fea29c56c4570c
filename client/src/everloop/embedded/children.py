"""Child processes that never outlive us: started through launch.py, remembered in a pid file."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from everloop.embedded.usage import cpu_seconds, family, memory_bytes
from everloop.errors import EverloopError

__all__ = ["Child", "Program", "last_lines", "remove_leftover", "wait_until_ready"]

_LAUNCH = Path(__file__).with_name("launch.py")
_LOG_BYTES = 16 * 1024 * 1024
_POLL_SECONDS = 0.02

# The death signal of a child fires when the *thread* that started it ends, so one thread, which lives as long
# as this process, starts them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="everloop-spawner")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, and how it ends."""

    name: str
    command: Sequence[str]
    log: Path
    pid_file: Path
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: int = signal.SIGTERM
    death_signal: int = signal.SIGKILL
    """What the kernel sends when this process dies."""


class Child:
    """One running program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        remove_leftover(program.pid_file)
        _rotate(program.log)
        self._process = _spawner.submit(_spawn, program).result()
        try:
            _remember(program.pid_file, self.pid)
        except OSError:  # a full disk: what nobody could find again must not run
            self.stop(patience_seconds=0.0)
            raise

    @property
    def pid(self) -> int:
        """The program's process id: launch.py becomes the program, so there is no process between."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def memory_bytes(self) -> int:
        """Memory of the program and its children, a shared page counted by its part; 0 when it is gone."""
        return memory_bytes(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time of the program and its living children since they started."""
        return cpu_seconds(self.pid)

    def signal(self, number: int) -> None:
        """Send a signal; a program that has ended is left alone."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within this time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, patience_seconds: float = 15.0) -> int:
        """Ask it to end, wait, then kill it and its children; returns the exit code."""
        members = family(self.pid)
        self.signal(self.program.stop_signal)
        if not self.wait(patience_seconds):
            self._process.kill()
        code = self._process.wait()
        _kill_all(members)
        self.program.pid_file.unlink(missing_ok=True)
        return code

    def last_lines(self, count: int = 12) -> str:
        """The end of its log, for an error message."""
        return last_lines(self.program.log, count)


def last_lines(log: Path, count: int) -> str:
    """The last `count` lines of a log, at most 16 KiB; empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-count:])


def remove_leftover(pid_file: Path, patience_seconds: float = 10.0) -> bool:
    """End the program of an earlier life, if it still runs; true when it did.

    The pid alone could meanwhile belong to a stranger, so its start time must match as well.
    """
    process = _remembered(pid_file)
    if process is not None:
        family = [process, *process.children(recursive=True)]
        process.terminate()
        psutil.wait_procs(family, timeout=patience_seconds)
        _kill_all(family)
    pid_file.unlink(missing_ok=True)
    return process is not None


def _spawn(program: Program) -> "subprocess.Popen[bytes]":
    launcher = [sys.executable, "-I", str(_LAUNCH), str(os.getpid()), str(int(program.death_signal))]
    with program.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603  # the command line is ours
            [*launcher, program.user or "-", *program.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **program.env},
            cwd=program.log.parent,
            start_new_session=True,  # Ctrl-C in the terminal reaches us alone: we stop the children in order
        )


def _rotate(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".1.log"))


def _remember(pid_file: Path, pid: int) -> None:
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(psutil.NoSuchProcess):  # ended already: the caller sees its exit code
        pid_file.write_text(json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def _remembered(pid_file: Path) -> psutil.Process | None:
    try:
        saved = json.loads(pid_file.read_text())
        process = psutil.Process(int(saved["pid"]))
        same = abs(process.create_time() - float(saved["started"])) < 1.0
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return process if same and process.is_running() else None


def _kill_all(family: Sequence[psutil.Process]) -> None:
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=5)


def wait_until_ready(child: Child, ready: Callable[[], bool], seconds: float) -> None:
    """Poll `ready` until it holds; a child that ends first, or the time running out, is an error."""
    deadline = time.monotonic() + seconds
    while not ready():
        code = child.exit_code()
        if code is not None or time.monotonic() > deadline:
            how = (
                f"ended with exit code {code}" if code is not None else f"was not ready after {seconds:.0f} s"
            )
            log = child.program.log
            child.stop(patience_seconds=1.0)
            raise EverloopError(
                f"{child.program.name} {how}:\n{last_lines(log, 12)}", f"The whole log: {log}"
            )
        time.sleep(_POLL_SECONDS)
