"""Structured logs: JSON lines on standard output, each with the current trace and span.

Fields: time, level, logger, message, service, trace_id, span_id; an unexpected error adds `traceback`.
The console format is for people: one line an event, without tracebacks unless the level is DEBUG.
"""

import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

from everloop_kernel.log_floods import FloodGate
from everloop_kernel.settings import PlatformSettings

__all__ = ["configure"]

_QUIET: Final = {
    "aiokafka": logging.WARNING,
    "kafka": logging.WARNING,
    "faststream": logging.WARNING,
    "uvicorn": logging.CRITICAL,  # what goes wrong in a route is logged by our own handler
    "opentelemetry": logging.WARNING,
    "urllib3": logging.WARNING,
    "asyncio": logging.WARNING,
}
"""Libraries that say at INFO what no operator reads."""
_FLOODING: Final = ("aiokafka", "kafka")
"""Libraries that say the same many times a second while a broker is away."""


class _JsonLines(JsonFormatter):
    """One JSON object a line."""

    def __init__(self, service: str) -> None:
        super().__init__(json_ensure_ascii=False)
        self._service = service

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Our own names in a fixed order, then what the caller gave as `extra`."""
        log_data.update(
            time=_timestamp(record),
            level=record.levelname.lower(),
            logger=record.name,
            message=record.getMessage(),
            service=self._service,
            **_trace_fields(),
        )
        super().add_fields(log_data, record, message_dict)
        log_data.pop("exc_info", None)
        if record.exc_info and record.exc_info[1] is not None:
            log_data["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))


class _Console(logging.Formatter):
    """One readable line an event."""

    def __init__(self, service: str, *, tracebacks: bool) -> None:
        super().__init__()
        self._service = service
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """The line; with a traceback below it only when debugging."""
        line = (
            f"{_timestamp(record)} {record.levelname:<7} {self._service} {record.name}: {record.getMessage()}"
        )
        if self._tracebacks and record.exc_info and record.exc_info[1] is not None:
            line += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        return line


def configure(service: str, platform: PlatformSettings) -> None:
    """Send the process's logs to standard output in the configured format and level."""
    handler = logging.StreamHandler(sys.stdout)
    debugging = platform.log_level == "DEBUG"
    handler.setFormatter(
        _JsonLines(service) if platform.log_format == "json" else _Console(service, tracebacks=debugging)
    )
    if not debugging:
        handler.addFilter(FloodGate(_FLOODING))
    logging.basicConfig(level=platform.log_level, handlers=[handler], force=True)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(logging.DEBUG if debugging else level)
    logging.captureWarnings(capture=True)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _trace_fields() -> dict[str, str]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
