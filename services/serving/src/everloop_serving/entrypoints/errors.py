"""What went wrong, as the Open Inference Protocol writes it, and counted."""

import logging
from collections.abc import Mapping

from everloop_kernel.errors import one_line
from everloop_kernel.http_message import Response, json_response

from everloop_serving.application.explain import Busy
from everloop_serving.application.models import ModelNotReady, UnknownModel
from everloop_serving.application.repository import NotHere
from everloop_serving.domain.tensors import InvalidInput
from everloop_serving.entrypoints.access import Refused
from everloop_serving.entrypoints.content import BodyTooLarge, UnsupportedContent
from everloop_serving.metrics import HotMetrics

__all__ = ["Errors", "error_response"]

_REFUSALS: Mapping[type[Exception], tuple[str, int]] = {
    InvalidInput: ("invalid", 400),
    NotHere: ("not-here", 409),
    BodyTooLarge: ("too-large", 413),
    UnsupportedContent: ("content-type", 415),
    UnknownModel: ("unknown-model", 404),
    ModelNotReady: ("not-ready", 503),
    Busy: ("busy", 503),
}
_UNAVAILABLE = 503
_log = logging.getLogger(__name__)


def error_response(status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
    """An error as the Open Inference Protocol writes it."""
    answer = json_response({"error": message}, status)
    answer.headers += headers
    return answer


class Errors:
    """Answers that are errors; each is counted by its kind."""

    def __init__(self, metrics: HotMetrics) -> None:
        self._metrics = metrics

    def of(self, error: Exception) -> Response:
        """The answer for an exception: the caller's mistake in words, a defect of ours only in the log."""
        if isinstance(error, Refused):
            return self.refuse(error.kind, error.status, str(error), *error.headers)
        for mistake, (kind, status) in _REFUSALS.items():
            if isinstance(error, mistake):
                later = [(b"retry-after", b"1")] if status == _UNAVAILABLE else []
                return self.refuse(kind, status, str(error.args[0]), *later)
        _log.error("a request failed: %s", one_line(error), exc_info=error)
        return self.refuse("internal", 500, "the request could not be answered; the service's log says why")

    def refuse(self, kind: str, status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
        """An error of a kind."""
        self._metrics.refused("http", kind)
        return error_response(status, message, *headers)
