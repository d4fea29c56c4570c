"""Keeps processes running: starts them, notices when they end, starts them again after a pause."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from everloop.embedded.children import Child, last_lines
from everloop.errors import EverloopError

__all__ = ["Supervised", "Supervisor", "stop_together"]

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
"""Having run this long, a process starts again with the first pause."""
_POLL_SECONDS = 0.2
_ASK_SECONDS = 1.0
_FULL_DISK_BYTES = 64 * 2**20
_MISCONFIGURED = 2
"""The exit code of a service that cannot run as it is set up: trying again does not help."""


@dataclass
class Supervised:
    """One process and how it is started."""

    name: str
    launch: Callable[[], Child]
    ready: Callable[[], bool]
    log: Path
    child: Child | None = None
    restarts: int = 0
    started_at: float = field(default=0.0, repr=False)
    pause_seconds: float = field(default=_FIRST_PAUSE_SECONDS, repr=False)
    start_at: float = field(default=0.0, repr=False)
    last_exit_code: int | None = None
    was_ready: bool = False
    recovering: bool = False
    """It was ready, has ended by itself, and has not been ready since."""
    ask_at: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """Start it now."""
        self.child = self.launch()
        self.started_at = time.monotonic()

    def ended(self) -> int | None:
        """The exit code, if it was started and has ended."""
        return self.child.exit_code() if self.child is not None else None

    def plan_restart(self) -> float:
        """Decide when to start again; returns the pause in seconds."""
        if time.monotonic() - self.started_at > _HEALTHY_SECONDS:
            self.pause_seconds = _FIRST_PAUSE_SECONDS
        pause = self.pause_seconds
        self.pause_seconds = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        self.start_at = time.monotonic() + pause
        self.last_exit_code = self.ended()
        self.child = None
        self.recovering = self.was_ready
        return pause


class Supervisor:
    """Watches a stack's processes in a thread of its own.

    Args:
        tell: called with a process's name and what happened to it, in words.
        changed: called whenever a process was started or has ended.

    An `OSError` of either, on a full disk or a closed terminal, ends no supervision: a change that could not
    be passed on is passed on later.
    """

    def __init__(self, tell: Callable[[str, str], None], changed: Callable[[], None]) -> None:
        self.processes: list[Supervised] = []
        self._tell = tell
        self._changed = changed
        self._behind = False  # a change could not be passed on yet
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="everloop-supervisor", daemon=True)

    def begin(self) -> None:
        """Start watching; processes are added with `bring_up`."""
        self._thread.start()

    def bring_up(self, processes: Sequence[Supervised], seconds: float) -> None:
        """Start these together, watch them from now on, and wait until each is ready."""
        begun = time.monotonic()
        for process in processes:
            process.start()
        self.processes.extend(processes)
        self._changed()
        waiting = list(processes)
        while waiting:
            for process in [one for one in waiting if one.child is not None and one.ready()]:
                waiting.remove(process)
                process.was_ready = True
                self._say(process, f"ready after {time.monotonic() - begun:.1f} s")
            self._refuse_hopeless(waiting, time.monotonic() - begun > seconds)
            self._over.wait(_POLL_SECONDS / 2 if waiting else 0)

    def end(self) -> None:
        """Stop watching, so that what ends now stays down."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _refuse_hopeless(self, waiting: Sequence[Supervised], late: bool) -> None:  # noqa: FBT001
        for process in waiting:
            if self._over.is_set():
                raise EverloopError("The start was interrupted.")
            misconfigured = _MISCONFIGURED in {process.ended(), process.last_exit_code}
            if misconfigured or late:
                how = "cannot run as it is set up" if misconfigured else "did not become ready in time"
                log = last_lines(process.log, 12)
                raise EverloopError(f"{process.name} {how}:\n{log}", f"The whole log: {process.log}")

    def _watch(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            for process in list(self.processes):
                self._look_at(process)
            if self._behind:
                self._pass_change_on()

    def _pass_change_on(self) -> None:
        try:
            self._changed()
            self._behind = False
        except OSError:  # a full disk, which `_tell_if_disk_is_full` names
            self._behind = True

    def _say(self, process: Supervised, what: str) -> None:
        with contextlib.suppress(OSError):  # the terminal has gone, or its file's disk is full
            self._tell(process.name, what)

    def _look_at(self, process: Supervised) -> None:
        code = process.ended()
        if code is not None:
            pause = process.plan_restart()
            self._say(process, f"ended with exit code {code}; starting again in {pause:.1f} s")
            self._tell_if_disk_is_full(process)
            self._pass_change_on()
        elif process.child is None and time.monotonic() >= process.start_at:
            self._restart(process)
        elif process.child is not None and process.recovering and time.monotonic() >= process.ask_at:
            self._look_whether_ready(process)

    def _look_whether_ready(self, process: Supervised) -> None:
        """Say that it is back; asked once a second, for some have to start a program to find out."""
        process.ask_at = time.monotonic() + _ASK_SECONDS
        if process.ready():
            process.recovering = False
            self._say(process, "is ready again")

    def _tell_if_disk_is_full(self, process: Supervised) -> None:
        """Say the one reason that the servers' own last words hide."""
        free = shutil.disk_usage(process.log.parent).free
        if free < _FULL_DISK_BYTES:
            where = process.log.parent
            self._say(process, f"{where} has {free >> 20} MiB left: free space; nothing is lost")

    def _restart(self, process: Supervised) -> None:
        process.restarts += 1
        try:
            process.start()
        except (EverloopError, OSError) as error:
            self._say(process, f"could not be started: {error}")
            process.started_at = time.monotonic()
            process.plan_restart()
        self._pass_change_on()


def stop_together(processes: Sequence[Supervised], seconds: float) -> None:
    """Ask all to end at once, and kill those that have not ended after `seconds`."""
    children = [process.child for process in processes if process.child is not None]
    for child in children:
        child.signal(child.program.stop_signal)
    deadline = time.monotonic() + seconds
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))
    for child in children:
        child.stop(patience_seconds=0.0)
