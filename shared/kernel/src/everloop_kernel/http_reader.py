"""From bytes to requests: httptools with limits on every part, for one connection."""

from collections.abc import Callable
from typing import Protocol

import httptools

from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Request

__all__ = ["Events", "Refused", "RequestReader"]

_READ_BYTES = 256 << 10
"""The most that the event loop hands over at once."""


class Refused(Exception):  # noqa: N818  (control flow inside the parser's callbacks)
    """The request breaks a limit, or is not HTTP/1.1: answer with this status and close."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Events(Protocol):
    """Who hears of what was read."""

    def opens(self, request: Request, *, expects: bool) -> bool:
        """A head is complete; True when its body is to be given to `received` piece by piece.

        `expects`: the client waits for "100 Continue" before it sends the body.
        """
        ...

    def received(self, piece: bytes) -> None:
        """A piece of such a body."""
        ...

    def completed(self, request: Request, *, keep: bool) -> None:
        """A request is complete; `keep`: the connection may serve another one."""
        ...


class RequestReader:
    """Reads the requests of one connection, one after the other."""

    def __init__(self, limits: Limits, events: Events, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._events = events
        self._clock = clock
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._head_bytes = 0  # received for a head that is not complete: the parser keeps it
        self.started: float | None = None
        """When the request now being read began."""
        self._reset()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._header_count = 0
        self._in_head = False
        self._body: list[bytes] = []
        self._streams = False
        self.body_bytes = 0
        """Received of the body now being read."""

    def feed(self, data: bytes) -> bool:
        """Read what came; False when what follows is not HTTP/1.1. Raises Refused."""
        if self._parser is None:
            return False
        upgraded = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            upgraded = True  # answered as a plain request
        except httptools.HttpParserError as error:
            raise _refused(error) from None
        self._check_head(len(data))
        return not upgraded

    def close(self) -> None:
        """Read no more."""
        self._parser = None  # they refer to each other
        self.started = None

    def _check_head(self, received_bytes: int) -> None:
        """Refuse a head that does not end: the parser reports a header only when it has all of it."""
        if not self._in_head:
            self._head_bytes = 0
            return
        self._head_bytes += received_bytes
        if self._head_bytes > self._limits.target_bytes + self._limits.header_bytes + _READ_BYTES:
            raise Refused(431, "the headers are too large")

    # httptools' side

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.started = self._clock()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url
        if len(self._target) > self._limits.target_bytes:
            raise Refused(414, f"the target is longer than {self._limits.target_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole header."""
        self._header_bytes += len(name) + len(value)
        self._header_count += 1
        limits = self._limits
        if self._header_bytes > limits.header_bytes or self._header_count > limits.header_count:
            raise Refused(431, "the headers are too large or too many")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Announce the request; refuse a body that is too large to be collected before it comes."""
        headers = self._headers
        self._in_head = False
        assert self._parser is not None
        version = self._parser.get_http_version()
        if version == "1.1" and b"host" not in headers:
            raise Refused(400, "the header Host is missing")
        if version not in ("1.1", "1.0"):
            raise Refused(505, "only HTTP versions 1.0 and 1.1 are served")
        expects = headers.get(b"expect", b"").lower() == b"100-continue"
        request = Request(self._parser.get_method(), self._target, headers, b"")
        self._streams = self._events.opens(request, expects=expects)
        length = headers.get(b"content-length")
        too_large = length is not None and len(length) > 3 and int(length) > self._limits.body_bytes  # noqa: PLR2004  (cheap first)
        if too_large and not self._streams:
            raise self._too_large()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self.body_bytes += len(body)
        if self._streams:
            self._events.received(body)
        elif self.body_bytes > self._limits.body_bytes:
            raise self._too_large()
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand the request over."""
        if self._parser is None:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(self._parser.get_method(), self._target, self._headers, body)
        keep = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self._reset()
        self.started = None
        self._events.completed(request, keep=keep)

    def _too_large(self) -> Refused:
        return Refused(413, f"the body is larger than {self._limits.body_bytes} bytes")


def _refused(error: httptools.HttpParserError) -> Refused:
    """A limit's own status and reason, or 400 for what is not HTTP."""
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    return cause if isinstance(cause, Refused) else Refused(400, f"this is not HTTP/1.1: {error}")
