"""uvicorn's connection with the limits of our own server: on a request's head, and on the time it takes."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import problem_response

__all__ = ["GuardedConnection"]

_READ_BYTES = 256 << 10
"""The most that the event loop hands over at once: of it, the head may be the last bytes only."""


class GuardedConnection(HttpToolsProtocol):
    """One connection; a client that sends without end, or hardly at all, is told so and closed.

    uvicorn's parser keeps a head until it is complete, however large, and waits for it however long.
    """

    limits = Limits()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._in_head = self._refused = False
        self._head_bytes = self._body_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wait(self.limits.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came; refuse a head that is too large, or does not end."""
        if self._refused:
            return
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._head_bytes > self.limits.target_bytes + self.limits.header_bytes + _READ_BYTES:
            self._refuse(431, "the headers are too large")

    # httptools' side

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head, self._body_bytes = True, 0
        self._wait(self.limits.request_seconds)

    def on_headers_complete(self) -> None:
        """The head is read."""
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete: uvicorn closes the connection if no other one follows its answer."""
        self._wait(None)
        super().on_message_complete()

    # time

    def _wait(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late, seconds)

    def _late(self, waited: float) -> None:
        """Too late, unless a large body, or a handler that has not taken what came, is the reason."""
        if self._refused:
            self.transport.close()
            return
        allowed = self.limits.seconds_for(self._body_bytes)
        if cast("Any", self.flow).read_paused:
            self._wait(waited)
        elif self._body_bytes and allowed > waited:
            self._wait(allowed - waited)
        else:
            self._refuse(408, "the request took too long to arrive")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer, unless an answer is under way; close once the client has had a moment to read it."""
        if self.transport.is_closing():
            return
        self._refused = True
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            response = problem_response(status, f"{reason}.")
            self.transport.write(response.head(b"", closing=True) + response.body)
        self.transport.write_eof()  # a close with bytes unread would be a reset, and the answer lost
        self._wait(self.limits.linger_seconds)
