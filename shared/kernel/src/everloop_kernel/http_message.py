"""One HTTP request and its answer, as the connection hands them to the routes."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

from everloop_kernel.http_body import BodyStream

__all__ = [
    "Deferred",
    "Handler",
    "Refusal",
    "Request",
    "Response",
    "as_future",
    "json_response",
    "problem_response",
]

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


class Deferred:
    """An answer that its handler gives a little later: `give` hands it to whoever waits, at once.

    It does what the connection needs of a future, without a turn of the event loop of its own; and it can be
    awaited. One waits for it, no more.
    """

    __slots__ = ("_cancelled", "_response", "_tell")

    def __init__(self) -> None:
        self._response: Response | None = None
        self._tell: Callable[[Deferred], None] | None = None
        self._cancelled = False

    def give(self, response: Response) -> None:
        """Answer; ignored where nobody wants the answer any more."""
        if not self._cancelled:
            self._response = response
            if self._tell is not None:
                self._tell(self)

    def add_done_callback(self, tell: "Callable[[Deferred], None]") -> None:
        """Call `tell` with this as soon as the answer is there."""
        self._tell = tell
        if self.done():
            tell(self)

    def cancel(self) -> None:
        """The answer is not wanted any more."""
        self._cancelled = True

    def cancelled(self) -> bool:
        """Whether it will never come."""
        return self._cancelled

    def done(self) -> bool:
        """Whether it has come, or never will."""
        return self._response is not None or self._cancelled

    def result(self) -> Response:
        """The answer; CancelledError or InvalidStateError where there is none."""
        if self._response is None:
            raise asyncio.CancelledError if self._cancelled else asyncio.InvalidStateError
        return self._response

    def __await__(self) -> Generator[Any, None, Response]:
        arrived = asyncio.Event()
        self.add_done_callback(lambda _: arrived.set())
        yield from arrived.wait().__await__()
        return self.result()


Handler = Callable[[Request], "Response | Awaitable[Response]"]
"""Answers a request at once, or later. It never raises."""
Refusal = Callable[..., Response]
"""`(status, message, *headers)`: the answer to what the server itself refuses, as its API writes errors."""


def as_future(answer: "Response | Awaitable[Response]") -> "asyncio.Future[Response] | Deferred":
    """What is answered at once, or later, as one that can be waited for."""
    if isinstance(answer, Deferred):
        return answer
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
