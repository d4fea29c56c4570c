"""Logs are JSON lines that a machine reads, or single lines that a person reads."""

import json
import logging

import pytest
from everloop_kernel import logs
from everloop_kernel.errors import ConfigurationError, PermanentError, one_line
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
