"""One HTTP request and its answer, as the connection hands them to the routes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from everloop_kernel.http_body import BodyStream

__all__ = ["Handler", "Refusal", "Request", "Response", "as_future", "json_response", "problem_response"]

JSON = b"application/json"
PROBLEM = b"application/problem+json"
_encode = msgspec.json.Encoder().encode
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


class Request:
    """A request. Header names are lower case; a header given twice keeps its last value.

    Its body is all in `body`, unless the server hands requests of its kind over before their body: then
    `stream` gives the body piece by piece.
    """

    __slots__ = ("body", "headers", "method", "stream", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        stream: BodyStream | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.stream = stream


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
Refusal = Callable[..., Response]
"""`(status, message, *headers)`: the answer to what the server itself refuses, as its API writes errors."""


def as_future(answer: "Response | Awaitable[Response]") -> "asyncio.Future[Response]":
    """What is answered at once, or later, as one that can be waited for."""
    if isinstance(answer, Response):
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        future.set_result(answer)
        return future
    return asyncio.ensure_future(answer)


def json_response(value: object, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(_encode(value), status)


def problem_response(
    status: int, detail: str, *headers: tuple[bytes, bytes], title: str | None = None, **extra: object
) -> Response:
    """An error as problem details (RFC 9457); `extra` adds members."""
    name = title or HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": name, "status": status, "detail": detail, **extra}
    return Response(_encode(body), status, PROBLEM, list(headers))
