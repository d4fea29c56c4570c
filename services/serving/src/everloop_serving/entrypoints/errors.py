"""What went wrong, as the Open Inference Protocol writes it, and counted."""

import logging

from everloop_kernel.errors import one_line
from everloop_kernel.http_message import Response, json_response

from everloop_serving.application.explain import Busy
from everloop_serving.application.models import ModelNotReady, UnknownModel
from everloop_serving.domain.tensors import InvalidInput
from everloop_serving.entrypoints.access import Refused
from everloop_serving.metrics import HotMetrics

__all__ = ["Errors", "UnsupportedContent", "error_response"]

_log = logging.getLogger(__name__)


class UnsupportedContent(Exception):  # noqa: N818  (the caller's mistake)
    """The body is of a kind that is not read."""


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
        match error:
            case InvalidInput():
                return self.refuse("invalid", 400, str(error))
            case UnknownModel():
                return self.refuse("unknown-model", 404, error.args[0])
            case ModelNotReady() | Busy():
                kind = "busy" if isinstance(error, Busy) else "not-ready"
                return self.refuse(kind, 503, str(error), (b"retry-after", b"1"))
            case Refused():
                return self.refuse(error.kind, error.status, str(error), *error.headers)
            case UnsupportedContent():
                return self.refuse("content-type", 415, str(error))
        _log.error("a request failed: %s", one_line(error), exc_info=error)
        return self.refuse("internal", 500, "the request could not be answered; the service's log says why")

    def refuse(self, kind: str, status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
        """An error of a kind."""
        self._metrics.refused("http", kind)
        return error_response(status, message, *headers)
