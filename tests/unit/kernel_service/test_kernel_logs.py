"""Logs are JSON lines that a machine reads, or single lines that a person reads."""

import json
import logging
import subprocess
import sys

import pytest
from everloop_kernel import logs
from everloop_kernel.errors import ConfigurationError, PermanentError, one_line
from everloop_kernel.log_floods import FloodGate
from everloop_kernel.settings import PlatformSettings
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags


@pytest.fixture(autouse=True)
def _restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)


def _log_an_error() -> None:
    try:
        {}["x"]
    except KeyError as error:
        logging.getLogger("everloop_x").exception(
            "it broke: %s", "é\n", exc_info=error, extra={"pipeline": "flights"}
        )


def test_json_lines(capsys):
    logs.configure("registry", PlatformSettings(log_format="json"))
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        _log_an_error()
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["message"] == "it broke: é\n"
    assert (found["level"], found["service"], found["pipeline"]) == ("error", "registry", "flights")
    assert found["trace_id"] == f"{1:032x}"
    assert found["span_id"] == f"{2:016x}"
    assert found["time"].endswith("Z")
    assert "KeyError" in found["traceback"]


def test_the_console_shows_no_traceback(capsys):
    """A person at a terminal must read one line, unless debugging."""
    logs.configure("registry", PlatformSettings(log_format="console"))
    _log_an_error()
    shown = capsys.readouterr().out
    assert "registry" in shown
    assert "Traceback" not in shown
    logs.configure("registry", PlatformSettings(log_format="console", log_level="DEBUG"))
    _log_an_error()
    assert "Traceback" in capsys.readouterr().out


def test_an_error_in_one_line():
    assert one_line(ValueError("a\n  b")) == "ValueError: a b"
    assert one_line(PermanentError("code", "what is wrong")) == "what is wrong"
    assert one_line(ConfigurationError("wrong", "mend it")) == "wrong. mend it"
    assert one_line(ExceptionGroup("many", [ValueError("first"), KeyError("second")])) == "ValueError: first"
    assert one_line(TimeoutError()) == "TimeoutError: no further detail"
    assert len(one_line(ValueError("x" * 9999))) < 600


class Lines:
    """What a gate lets through, at times that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._gate = FloodGate(("aiokafka",), seconds=15, patience_seconds=5, clock=lambda: self.now)

    def write(self, name: str, level: int, message: str, *arguments: object) -> str | None:
        record = logging.LogRecord(name, level, "", 0, message, arguments, None)
        return record.getMessage() if self._gate.filter(record) else None


UNABLE = "Unable connect to node with id %s: %s"


def test_a_flood_becomes_a_line_in_a_while_with_its_count():
    """Nine thousand lines of a broker's outage hide the one that says that it is over."""
    lines, shown = Lines(), []
    for _ in range(200):
        shown += [lines.write("aiokafka", logging.ERROR, UNABLE, 1, "refused")]
        lines.now += 0.1
    assert [line for line in shown if line] == [
        "Unable connect to node with id 1: refused",
        "Unable connect to node with id 1: refused (and 149 lines like it before, left out)",
    ]


def test_kinds_and_services_of_our_own_are_not_held_back():
    """What is left out must be repetition alone, and never a line of Everloop."""
    lines = Lines()
    assert lines.write("aiokafka", logging.ERROR, UNABLE, 1, "refused")
    assert lines.write("aiokafka.consumer.fetcher", logging.ERROR, "Failed fetch messages: %s", "x")
    assert lines.write("aiokafka", logging.WARNING, UNABLE, 1, "refused")
    assert all(lines.write("everloop_kernel.table", logging.ERROR, "lost the broker") for _ in range(9))
    assert all(lines.write("aiokafkaesque", logging.ERROR, "x") for _ in range(9))


RETRY = "Got error produce response on topic-partition %s, retrying. Error: %s"


@pytest.mark.parametrize("template", [RETRY, "Group Coordinator Request failed: %s"])
def test_a_retry_that_helps_is_not_mentioned_and_one_that_goes_on_is(template):
    """A healthy start must be quiet, and a broker that refuses for long must not be."""
    lines = Lines()
    assert {lines.write("aiokafka", logging.WARNING, template) for _ in range(9)} == {None}
    lines.now += 100
    assert lines.write("aiokafka", logging.WARNING, template) is None
    lines.now += 6
    assert lines.write("aiokafka", logging.WARNING, template)


def test_the_configured_log_holds_a_flood_back(capsys):
    """The gate must stand where the lines pass, for both formats."""
    logs.configure("registry", PlatformSettings(log_format="console"))
    for _ in range(50):
        logging.getLogger("aiokafka.client").error(UNABLE, 1, "refused")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_forks_beside_grpc_are_silent():
    """Each swap of a model starts a sandbox: gRPC must not write about that to the terminal."""
    program = "import everloop_serving, os; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "0\n"
