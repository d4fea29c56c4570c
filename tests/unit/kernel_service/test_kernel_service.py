"""The life of a process: it starts, serves, drains and ends with a code that its supervisor understands."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

PROCESS = Path(__file__).with_name("serving_process.py")


class Started:
    """A running service and what it says."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROCESS), *arguments],
            env={**os.environ, "EVERLOOP_LOG_FORMAT": "console", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen = ""

    def address(self) -> str:
        for line in self.process.stdout:
            self.seen += line
            if found := re.search(r"listening on (http://\S+)", line):
                return found[1]
        raise AssertionError(self.seen)

    def end(self) -> int:
        rest, _ = self.process.communicate(timeout=60)
        self.seen += rest
        return self.process.returncode


def test_a_signal_drains_and_exits_zero():
    """A deployment that replaces the process must not see a failure, and requests in flight are answered."""
    service = Started()
    address = service.address()
    assert httpx.get(f"{address}/health/ready").json()["components"] == [{"name": "worker", "ready": True}]
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(httpx.get(f"{address}/slow").json()))
    asking.start()
    threading.Event().wait(0.3)
    service.process.send_signal(signal.SIGTERM)
    assert service.end() == 0
    asking.join()
    assert answers == ["finished"]
    assert "drained" in service.seen


def test_a_failing_component_ends_the_process_with_one_line():
    """A consumer that died in silence would leave a healthy-looking service that does nothing."""
    service = Started("fails")
    assert service.end() == 1
    (line,) = [line for line in service.seen.splitlines() if "CRITICAL" in line]
    assert "worker failed: KeyError: 'a bug'" in line
    assert "Traceback" not in service.seen


def test_what_only_a_person_can_mend_is_said_without_a_traceback():
    """Exit code 2 tells the supervisor that starting again does not help."""
    service = Started("needs-a-person", EVERLOOP_LOG_FORMAT="json")
    assert service.end() == 2
    assert "worker failed: the state cannot be read. Restore it" in service.seen
    assert "Traceback" not in service.seen


def test_a_component_that_just_ends_is_a_failure():
    service = Started("ends")
    assert service.end() == 1
    assert "worker failed: it ended although nobody asked it to" in service.seen


def test_a_second_signal_does_not_wait():
    """An operator who presses Ctrl-C twice means it."""
    service = Started("hangs")
    service.address()
    service.process.send_signal(signal.SIGINT)
    for line in service.process.stdout:
        if "stopping" in line:
            break
    service.process.send_signal(signal.SIGINT)
    assert service.end() == 1


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"EVERLOOP_TEST_HTTP_PORT": "many"}, "EVERLOOP_TEST_HTTP_PORT='many' is refused"),
        ({"EVERLOOP_TEST_HTTP_HOST": "0.0.0.0"}, "EVERLOOP_TEST_HTTP_HOST=0.0.0.0 would let anyone"),
        ({"EVERLOOP_TOKENS_FILE": "/none"}, "the tokens file /none cannot be read"),
        ({"EVERLOOP_TEST_HTTP_HOST": "203.0.113.7", "EVERLOOP_TOKENS_FILE": "/dev/null"}, "cannot listen on"),
    ],
)
def test_unusable_settings_exit_two_with_one_line(environment, expected):
    """A traceback tells an operator nothing; the variable's name tells what to change."""
    service = Started(**environment)
    assert service.end() == 2
    (line,) = service.seen.splitlines()
    assert expected in line


def test_a_port_in_use_is_named_with_its_owner():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = Started(EVERLOOP_TEST_HTTP_PORT=str(port))
        assert service.end() == 2
    assert f"127.0.0.1:{port} is in use by process {os.getpid()}" in service.seen
    assert "set EVERLOOP_TEST_HTTP_PORT" in service.seen


def test_an_error_before_the_start_is_one_line():
    service = Started("raises")
    assert service.end() == 1
    assert service.seen.strip() == "everloop: ValueError: before anything has started"
