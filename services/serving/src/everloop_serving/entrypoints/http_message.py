"""One HTTP request and its answer, as the connection hands them to the routes."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

__all__ = ["Handler", "Request", "Response", "error_response", "json_response"]

JSON = b"application/json"
_encode = msgspec.json.Encoder().encode
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


class Request:
    """A whole request. Header names are lower case; a header given twice keeps its last value."""

    __slots__ = ("body", "headers", "method", "target")

    def __init__(self, method: bytes, target: bytes, headers: Mapping[bytes, bytes], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


@dataclass(slots=True)
class Response:
    """An answer; the connection adds length, date and connection headers."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def head(self, date_header: bytes, *, closing: bool) -> bytes:
        """The status line and headers, with the empty line that ends them."""
        extra = b"".join([b"%s: %s\r\n" % header for header in self.headers]) if self.headers else b""
        return b"%scontent-type: %s\r\ncontent-length: %d\r\n%s%s%s\r\n" % (
            _STATUS_LINES[self.status],
            self.content_type,
            len(self.body),
            date_header,
            extra,
            b"connection: close\r\n" if closing else b"",
        )


Handler = Callable[[Request], "Response | Awaitable[Response]"]
"""Answers a request at once, or later. It never raises."""


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(_encode(value), status)


def error_response(status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
    """An error as the Open Inference Protocol writes it."""
    return Response(_encode({"error": message}), status, headers=list(headers))
