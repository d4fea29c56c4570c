"""Processes are kept running, and hopeless ones are not."""

import errno
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from everloop.embedded.children import Child, Program
from everloop.errors import EverloopError
from everloop.stack.supervisor import Supervised, Supervisor, stop_together


def supervised(folder: Path, code: str, ready=lambda: True) -> Supervised:
    program = Program("work", [sys.executable, "-c", code], folder / "work.log", folder / "work.pid")
    return Supervised("work", lambda: Child(program), ready, folder / "work.log")


@pytest.fixture
def told() -> list[str]:
    return []


@contextmanager
def supervising(made: Supervisor) -> Iterator[Supervisor]:
    made.begin()
    try:
        yield made
    finally:
        made.end()
        stop_together(made.processes, 5)


@pytest.fixture
def supervisor(told):
    with supervising(Supervisor(lambda _name, what: told.append(what), lambda: None)) as made:
        yield made


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_process_is_started_again(supervisor, told, tmp_path):
    """Kill -9 of a service must heal by itself."""
    process = supervised(tmp_path, "import time; time.sleep(60)")
    supervisor.bring_up([process], 5)
    first = process.child.pid
    process.child.signal(9)
    wait_until(lambda: process.child is not None and process.child.pid != first)
    assert process.restarts == 1
    assert "ended with exit code -9; starting again in 0.5 s" in told


def test_a_killed_process_that_is_back_says_so(supervisor, told, tmp_path):
    """Who saw "kafka ended" must not have to guess whether the outage is over."""
    back = tmp_path / "back"
    back.touch()
    process = supervised(tmp_path, "import time; time.sleep(60)", ready=back.exists)
    supervisor.bring_up([process], 5)
    first = process.child.pid
    back.unlink()
    process.child.signal(9)
    wait_until(lambda: process.child is not None and process.child.pid != first)
    assert "is ready again" not in told
    back.touch()
    wait_until(lambda: "is ready again" in told)
    assert told[-1] == "is ready again"


def test_a_full_disk_is_named(supervisor, told, tmp_path, monkeypatch):
    """A broker on a full disk ends with a stack trace; the user needs the reason."""
    full = shutil._ntuple_diskusage(10**9, 10**9, 0)
    monkeypatch.setattr("everloop.stack.supervisor.shutil.disk_usage", lambda _: full)
    process = supervised(tmp_path, "import time; time.sleep(60)")
    supervisor.bring_up([process], 5)
    process.child.signal(9)
    wait_until(lambda: any("has 0 MiB left: free space" in what for what in told))


def test_a_full_disk_ends_no_supervision(told, tmp_path):
    """The broker that a full disk ended must come back by itself once there is space."""
    full, recorded = tmp_path / "full", []

    def change():
        if full.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        recorded.append(process.child and process.child.pid)

    process = supervised(tmp_path, "import time; time.sleep(60)")
    with supervising(Supervisor(lambda _name, what: told.append(what), change)) as made:
        made.bring_up([process], 5)
        first = process.child.pid
        full.touch()
        process.child.signal(9)
        wait_until(lambda: process.child is not None and process.child.pid != first)
        full.unlink()
        wait_until(lambda: recorded[-1] == process.child.pid)


def test_a_closed_terminal_ends_no_supervision(tmp_path):
    """`everloop up | head` loses its reader: the stack goes on all the same."""

    def tell(_name, _what):
        raise BrokenPipeError

    process = supervised(tmp_path, "import time; time.sleep(60)")
    with supervising(Supervisor(tell, lambda: None)) as made:
        made.bring_up([process], 5)
        first = process.child.pid
        process.child.signal(9)
        wait_until(lambda: process.child is not None and process.child.pid != first)


def test_a_process_that_cannot_be_remembered_is_not_left_behind(tmp_path, monkeypatch):
    """On a full disk no pid file can be written; without one nobody would ever end the process."""
    begun = []

    def refuse(_file, pid):
        begun.append(pid)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("everloop.embedded.children._remember", refuse)
    with pytest.raises(OSError, match="No space left"):
        supervised(tmp_path, "import time; time.sleep(60)").start()
    assert not psutil.pid_exists(begun[0])


def test_pauses_grow_and_have_a_limit(tmp_path):
    """A service that dies at once must not burn a core."""
    process = supervised(tmp_path, "")
    process.started_at = time.monotonic()
    pauses = [process.plan_restart() for _ in range(9)]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_after_a_healthy_time_the_pause_is_short_again(tmp_path):
    """One crash a day must not cost 30 seconds each."""
    process = supervised(tmp_path, "")
    process.pause_seconds = 30.0
    process.started_at = time.monotonic() - 61
    assert process.plan_restart() == 0.5


def test_a_misconfigured_service_stops_the_start_with_its_words(supervisor, tmp_path):
    """Waiting 90 seconds for a service that has said what is wrong helps nobody."""
    process = supervised(
        tmp_path, "print('EVERLOOP_X=1 is refused'); raise SystemExit(2)", ready=lambda: False
    )
    begun = time.monotonic()
    with pytest.raises(EverloopError, match=r"(?s)cannot run as it is set up.*EVERLOOP_X=1 is refused"):
        supervisor.bring_up([process], 60)
    assert time.monotonic() - begun < 10


def test_a_service_that_never_gets_ready_is_named(supervisor, tmp_path):
    """The start must end with a name and a log, not hang."""
    process = supervised(
        tmp_path, "print('still waiting', flush=True); import time; time.sleep(60)", ready=lambda: False
    )
    with pytest.raises(EverloopError, match=r"(?s)work did not become ready in time.*still waiting"):
        supervisor.bring_up([process], 1)


def test_what_does_not_end_is_killed(tmp_path):
    """Ctrl-C must end everything, also a service that ignores it."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    process = supervised(tmp_path, code)
    process.start()
    wait_until(lambda: "deaf" in process.log.read_text())
    begun = time.monotonic()
    stop_together([process], 0.5)
    assert process.child.exit_code() == -9
    assert time.monotonic() - begun < 5
