"""`everloop up` as a person uses it: started, started twice, killed, started again."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from everloop.stack import Ports
from everloop.stack.folder import STACK_VARIABLE, DataFolder

pytestmark = pytest.mark.integration

EVERLOOP = [sys.executable, "-m", "everloop"]
SERVICE = "registry"


class Up:
    """One running `everloop up` on ports of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = Ports.free()
        self.process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> list[str]:
        ports = dataclasses.asdict(self.ports).items()
        flags = [part for name, port in ports for part in (f"--{name.replace('_', '-')}-port", str(port))]
        return ["up", "--data-dir", str(self.folder), "--services", SERVICE, *flags]

    def start(self) -> None:
        with (self.folder.parent / "output").open("ab") as output:
            self.process = subprocess.Popen(
                [*EVERLOOP, *self.arguments()], stdout=output, stderr=output, start_new_session=True
            )
        wait_until(self.is_ready, 60)

    def is_ready(self) -> bool:
        assert self.process.poll() is None, (self.folder.parent / "output").read_text()
        record = DataFolder(self.folder).read()
        told = "Everything is ready" in (self.folder.parent / "output").read_text()
        return record is not None and record.ready and told

    def pids(self) -> dict[str, int]:
        return {name: process.pid for name, process in DataFolder(self.folder).read().processes.items()}

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)


@pytest.fixture
def up(tmp_path: Path):
    running = Up(tmp_path / "data")
    yield running
    if running.process is not None and running.process.poll() is None:
        running.end(signal.SIGTERM)


def everloop(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*EVERLOOP, *arguments], capture_output=True, text=True, timeout=60, check=False)


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def left_behind(pids: dict[str, int], folder: Path) -> list[psutil.Process]:
    """What of the stack still runs: by pid, and by the mark in the environment."""
    marked = [one for one in psutil.process_iter() if mark_of(one) == str(folder)]
    known = [psutil.Process(pid) for pid in pids.values() if psutil.pid_exists(pid)]
    return [one for one in {*marked, *known} if one.status() != psutil.STATUS_ZOMBIE]


def mark_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(STACK_VARIABLE)
    except (psutil.Error, OSError):
        return None


def test_ctrl_c_stops_everything(up: Up):
    """Ctrl-C must end the whole stack within 30 seconds, with exit code 0 and nothing left."""
    up.start()
    pids = up.pids()
    assert pids.keys() == {"kafka", "postgres", SERVICE}
    begun = time.monotonic()
    assert up.end(signal.SIGINT) == 0
    assert time.monotonic() - begun < 30
    assert left_behind(pids, up.folder) == []
    assert DataFolder(up.folder).read() is None


def test_a_second_up_says_that_one_runs(up: Up):
    """Two stacks on one folder would destroy it; the message must say which process has it."""
    up.start()
    second = everloop(*up.arguments())
    assert second.returncode == 1
    assert f"already running in {up.folder} (pid {up.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named_with_owner_and_setting(up: Up):
    """The user must learn who has the port and how to choose another, before anything was started."""
    with socket.create_server(("127.0.0.1", up.ports.registry)):
        refused = everloop(*up.arguments())
    assert refused.returncode == 1
    assert f"Port {up.ports.registry}, wanted for registry, is in use by" in refused.stderr
    assert f"pid {os.getpid()}" in refused.stderr
    assert "--registry-port or EVERLOOP_STACK_REGISTRY_PORT" in refused.stderr


def test_after_kill_nine_of_everything_the_next_up_goes_on(up: Up):
    """A power cut, or `kill -9` of up itself, must cost nothing but a start."""
    up.start()
    key = (up.folder / "registry" / "signing-key.pem").read_bytes()
    pids = up.pids()
    up.end(signal.SIGKILL)
    wait_until(lambda: not left_behind(pids, up.folder), 15)
    up.start()
    assert (up.folder / "registry" / "signing-key.pem").read_bytes() == key
    assert not set(up.pids().values()) & set(pids.values())


def test_killed_processes_come_back(up: Up):
    """Nobody should have to look after the stack."""
    up.start()
    for name in ("kafka", "postgres", SERVICE):
        old = up.pids()[name]
        os.kill(old, signal.SIGKILL)
        wait_until(lambda name=name, old=old: up.pids()[name] not in {old, None}, 15)
    wait_until(lambda: ready(up), 60)


def ready(up: Up) -> bool:
    found = json.loads(everloop("status", "--json", "--data-dir", str(up.folder)).stdout)
    return next(one for one in found["services"] if one["name"] == SERVICE)["ready"]


def test_detached_up_status_and_down(up: Up):
    """A stack in the background is watched and stopped by its folder alone."""
    started = everloop(*up.arguments(), "--detach")
    assert started.returncode == 0, started.stderr
    pids = up.pids()
    try:
        status = json.loads(everloop("status", "--json", "--data-dir", str(up.folder)).stdout)
        assert {one["name"]: one["pid"] for one in status["servers"]} == {
            n: pids[n] for n in ("kafka", "postgres")
        }
        assert all(one["memory_bytes"] > 0 for one in status["servers"])
    finally:
        stopped = everloop("down", "--data-dir", str(up.folder))
    assert stopped.returncode == 0, stopped.stderr
    assert left_behind(pids, up.folder) == []


def test_down_without_a_stack_is_no_failure(tmp_path: Path):
    """Scripts call it to be sure."""
    result = everloop("down", "--data-dir", str(tmp_path))
    assert result.returncode == 0
    assert "Nothing runs" in result.stdout
