"""One HTTP/1.1 connection: parse, hand over, answer in order.

A parser on a transport, without a framework in between: a request costs about 20 microseconds here. Requests
may be pipelined; answers leave in the order of the requests, also when one of them takes longer.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from everloop_serving.entrypoints.http_message import Handler, Request, Response, error_response

__all__ = ["Connection", "Limits", "Owner"]

_READ_BYTES = 256 << 10
"""The most that the event loop hands over at once."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask for."""

    body_bytes: int = 32 << 20
    target_bytes: int = 4096
    header_bytes: int = 16_384
    header_count: int = 100
    request_seconds: float = 15.0
    """From a request's first byte to its last; a body larger than 1 MiB gets a second more per 128 KiB."""
    idle_seconds: float = 75.0
    write_seconds: float = 30.0
    connections: int = 10_000
    pipelined: int = 64
    """Answers that may be under way before the connection stops reading."""

    def seconds_for(self, received_bytes: int) -> float:
        """How long a request may take whose body has `received_bytes` so far."""
        return self.request_seconds + max(0, received_bytes - (1 << 20)) / (128 << 10)


class Owner(Protocol):
    """What a connection needs of its server."""

    handler: Handler
    limits: Limits
    now: float
    """Coarse monotonic seconds, renewed by the server's sweep."""
    date_header: bytes
    draining: bool

    def opened(self, connection: "Connection") -> bool:
        """Count a connection in; False when there are too many."""
        ...

    def closed(self, connection: "Connection") -> None:
        """Count it out."""
        ...


class _Refused(Exception):  # noqa: N818  (control flow inside the parser's callbacks)
    """The request breaks a limit: answer and close."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._limits = owner.limits
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[asyncio.Future[Response], bool, bool]] = deque()
        self._out: list[bytes] = []
        self._closing = False
        self._paused_reading = False
        self._blocked_since: float | None = None
        self._started: float | None = None  # when the request now being read began
        self._idle_since = owner.now
        self._head_bytes = 0  # received for a head that is not complete: the parser keeps it
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._header_count = 0
        self._in_head = False
        self._body: list[bytes] = []
        self._body_bytes = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, or refuse it when there are too many connections."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but not by inheritance
        if not self._owner.opened(self):
            self._refuse(error_response(503, "too many connections", (b"retry-after", b"1")))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Forget the connection; answers under way are dropped."""
        self._closing = True
        self._transport = None
        self._parser = None  # they refer to each other
        for future, _, _ in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; each request that is complete is answered."""
        if self._closing or self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._closing = True  # answered as a plain request; what follows is not HTTP/1.1
        except httptools.HttpParserError as error:
            if not self._closing:
                self._refuse(_answer_to(error))
        self._check_head(len(data))
        self._flush()

    def _check_head(self, received_bytes: int) -> None:
        """Refuse a head that does not end: the parser reports a header only when it has all of it."""
        if not self._in_head:
            self._head_bytes = 0
            return
        self._head_bytes += received_bytes
        if self._head_bytes > self._limits.target_bytes + self._limits.header_bytes + _READ_BYTES:
            self._refuse(error_response(431, "the headers are too large"))

    def eof_received(self) -> bool:
        """The client sends no more; answers under way are still written."""
        if self._started is not None and not self._closing:
            self._refuse(error_response(400, "the connection ended within a request"))
        self._closing = True
        return bool(self._waiting)

    def pause_writing(self) -> None:
        """The client does not read its answers: read no more requests."""
        self._blocked_since = self._owner.now
        self._pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked_since = None
        self._resume_reading()

    # the server's side

    def check_time(self, now: float) -> None:
        """Close what idles, trickles or does not read; called about once a second."""
        if self._transport is None:
            return
        if self._blocked_since is not None and now - self._blocked_since > self._limits.write_seconds:
            self._transport.abort()
        elif self._started is not None:
            if now - self._started > self._limits.seconds_for(self._body_bytes):
                self._refuse(error_response(408, "the request took too long to arrive"))
                self._flush()
        elif not self._waiting and now - self._idle_since > self._limits.idle_seconds:
            self._transport.close()

    def drain(self) -> None:
        """Close as soon as nothing is under way."""
        if self._started is None and not self._waiting and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    # httptools' side

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._started = self._owner.now
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise _Refused(
                error_response(414, f"the target is longer than {self._limits.target_bytes} bytes")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header."""
        self._header_bytes += len(name) + len(value)
        self._header_count += 1
        limits = self._limits
        if self._header_bytes > limits.header_bytes or self._header_count > limits.header_count:
            raise _Refused(error_response(431, "the headers are too large or too many"))
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Refuse a body that is too large before it comes."""
        headers = self._headers
        self._in_head = False
        assert self._parser is not None
        version = self._parser.get_http_version()
        if version == "1.1" and b"host" not in headers:
            raise _Refused(error_response(400, "the header Host is missing"))
        if version not in ("1.1", "1.0"):
            raise _Refused(error_response(505, "only HTTP versions 1.0 and 1.1 are served"))
        length = headers.get(b"content-length")
        if length is not None and len(length) > 3 and int(length) > self._limits.body_bytes:  # noqa: PLR2004  (cheap first)
            raise _Refused(self._too_large())
        if headers.get(b"expect", b"").lower() == b"100-continue" and not self._waiting:
            self._flush()
            assert self._transport is not None
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise _Refused(self._too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer, at once or when its turn comes."""
        if self._closing:
            return
        assert self._parser is not None
        method = self._parser.get_method()
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(method, self._target, self._headers, body)
        keep = (
            self._parser.should_keep_alive()
            and not self._parser.should_upgrade()
            and not self._owner.draining
        )
        self._reset()
        self._started = None
        self._idle_since = self._owner.now
        self._answer(self._owner.handler(request), head_only=method == b"HEAD", keep=keep)

    # answers

    def _answer(self, answer: "Response | Awaitable[Response]", *, head_only: bool, keep: bool) -> None:
        if isinstance(answer, Response) and not self._waiting:
            self._write(answer, head_only=head_only, keep=keep)
            return
        future = _as_future(answer)
        self._waiting.append((future, head_only, keep))
        future.add_done_callback(self._answered)
        if not keep:
            self._closing = True
        if len(self._waiting) >= self._limits.pipelined:
            self._pause_reading()

    def _answered(self, _: "asyncio.Future[Response]") -> None:
        """Write every answer whose turn has come."""
        while self._waiting and self._waiting[0][0].done():
            future, head_only, keep = self._waiting.popleft()
            if future.cancelled():
                return
            self._write(future.result(), head_only=head_only, keep=keep)
        self._idle_since = self._owner.now
        self._flush()
        if len(self._waiting) < self._limits.pipelined:
            self._resume_reading()

    def _write(self, response: Response, *, head_only: bool, keep: bool) -> None:
        self._out.append(response.head(self._owner.date_header, closing=not keep))
        if not head_only:
            self._out.append(response.body)
        if not keep:
            self._closing = True

    def _flush(self) -> None:
        """Write what is ready in one call; close when that was the last answer."""
        if self._transport is None:
            return
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._closing and not self._waiting:
            self._transport.close()

    def _refuse(self, response: Response) -> None:
        """Answer what cannot be read any further, after the answers under way, and close."""
        self._started = None
        self._answer(response, head_only=False, keep=False)
        self._closing = True
        self._flush()

    def _too_large(self) -> Response:
        return error_response(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def _pause_reading(self) -> None:
        if not self._paused_reading and self._transport is not None:
            self._paused_reading = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused_reading and self._blocked_since is None and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()


def _as_future(answer: "Response | Awaitable[Response]") -> "asyncio.Future[Response]":
    if isinstance(answer, Response):
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        future.set_result(answer)
        return future
    return asyncio.ensure_future(answer)


def _answer_to(error: httptools.HttpParserError) -> Response:
    """A limit's own answer, or 400 for what is not HTTP."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    if isinstance(cause, _Refused):
        return cause.response
    return error_response(400, f"this is not HTTP/1.1: {error}")
