"""One HTTP/1.1 connection: read, hand over, answer in order.

A parser on a transport, without a framework in between: a request costs about 20 microseconds here. Requests
may be pipelined; answers leave in the order of the requests, also when one of them takes longer. A body is
collected before its request is handed over, or streamed to the handler where the server says so.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, cast

from everloop_kernel.http_body import BodyError, BodyStream
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Deferred, Handler, Refusal, Request, Response, as_future
from everloop_kernel.http_reader import Refused, RequestReader

__all__ = ["Connection", "Owner"]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Owner(Protocol):
    """What a connection needs of its server."""

    handler: Handler
    refusal: Refusal
    streamed: Callable[[Request], bool] | None
    """Whether a request is handed over before its body."""
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


@dataclass(slots=True)
class _Pending:
    """An answer under way."""

    future: "asyncio.Future[Response] | Deferred"
    head_only: bool
    keep: bool
    stream: BodyStream | None = None


class Connection(asyncio.Protocol):
    """The protocol of one connection."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._limits = owner.limits
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(owner.limits, self, lambda: owner.now)
        self._waiting: deque[_Pending] = deque()
        self._streaming: _Pending | None = None  # the request whose body now comes
        self._out: list[bytes] = []
        self._closing = False  # what still comes is not read
        self._ended = False  # the client sends no more
        self._unread = False  # a request was answered before all of it had come
        self._linger_until: float | None = None
        self._paused_since: float | None = None
        self._blocked_since: float | None = None
        self._idle_since = owner.now
        self._buffered = 0  # of streamed bodies, not yet taken by their handlers

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, or refuse it when there are too many connections."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one, but not by inheritance
        if not self._owner.opened(self):
            refusal = self._owner.refusal(503, "too many connections", (b"retry-after", b"1"))
            self._answer(refusal, head_only=False, keep=False)
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Forget the connection; answers under way are dropped."""
        self._closing = True
        self._transport = None
        self._reader.close()
        for pending in self._waiting:
            pending.future.cancel()
        self._waiting.clear()
        self._owner.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read what came; each request that is complete is answered."""
        if self._closing:
            return
        try:
            if not self._reader.feed(data):
                self._closing = True
        except Refused as refused:
            if not self._closing:
                self._broken(refused.status, str(refused))
        self._flush()

    def eof_received(self) -> bool:
        """The client sends no more; answers under way are still written."""
        self._ended = True
        if self._reader.started is not None and not self._closing:
            self._broken(400, "the connection ended within a request")
        self._closing = True
        return bool(self._waiting)

    def pause_writing(self) -> None:
        """The client does not read its answers: read no more requests."""
        self._blocked_since = self._owner.now
        self._update_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked_since = None
        self._update_reading()

    # the server's side

    def check_time(self, now: float) -> None:
        """Close what idles, trickles or does not read; called about once a second."""
        if self._transport is None:
            return
        if self._is_given_up(now):
            self._transport.abort()
        elif self._reader.started is not None:
            if self._is_late(now):
                self._broken(408, "the request took too long to arrive")
                self._flush()
        elif not self._waiting and now - self._idle_since > self._limits.idle_seconds:
            self._transport.close()

    def _is_given_up(self, now: float) -> bool:
        """Whether the client does not read its answers, or goes on sending what was refused."""
        blocked = self._blocked_since is not None and now - self._blocked_since > self._limits.write_seconds
        return blocked or (self._linger_until is not None and now > self._linger_until)

    def _is_late(self, now: float) -> bool:
        started = self._reader.started
        seconds = self._limits.seconds_for(self._reader.body_bytes)
        return started is not None and self._paused_since is None and now - started > seconds

    def drain(self) -> None:
        """Close as soon as nothing is under way."""
        if self._reader.started is None and not self._waiting and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    # the reader's side

    def opens(self, request: Request, *, expects: bool) -> bool:
        """Hand a request over whose body is streamed."""
        expects = expects and not self._waiting
        if self._owner.streamed is None or self._closing or not self._owner.streamed(request):
            if expects:
                self._continue()
            return False
        request.stream = BodyStream(self._taken, self._continue if expects else None)
        future = as_future(self._owner.handler(request))
        self._streaming = _Pending(future, request.method == b"HEAD", keep=True, stream=request.stream)
        self._enqueue(self._streaming)
        return True

    def received(self, piece: bytes) -> None:
        """Give a piece to the handler."""
        if self._closing or self._streaming is None or self._streaming.stream is None:
            return
        self._buffered += len(piece)
        self._streaming.stream.feed(piece)
        self._update_reading()

    def completed(self, request: Request, *, keep: bool) -> None:
        """Answer a request, at once or when its turn comes; a streamed one has its handler already."""
        if self._closing:
            return
        keep = keep and not self._owner.draining
        self._idle_since = self._owner.now
        if self._streaming is None:
            self._answer(self._owner.handler(request), head_only=request.method == b"HEAD", keep=keep)
            return
        self._streaming.keep = keep
        self._closing = self._closing or not keep
        if self._streaming.stream is not None:
            self._streaming.stream.finish()
        self._streaming = None

    def _taken(self, size: int) -> None:
        self._buffered -= size
        if self._paused_since is not None:
            self._update_reading()

    def _continue(self) -> None:
        if self._transport is not None and not self._closing:
            self._flush()
            self._transport.write(_CONTINUE)

    # answers

    def _answer(self, answer: "Response | Awaitable[Response]", *, head_only: bool, keep: bool) -> None:
        if isinstance(answer, Response) and not self._waiting:
            self._write(answer, head_only=head_only, keep=keep)
            return
        self._enqueue(_Pending(as_future(answer), head_only, keep))
        if not keep:
            self._closing = True

    def _enqueue(self, pending: _Pending) -> None:
        self._waiting.append(pending)
        pending.future.add_done_callback(self._answered)
        if len(self._waiting) >= self._limits.pipelined:
            self._update_reading()

    def _answered(self, _: object) -> None:
        """Write every answer whose turn has come."""
        while self._waiting and self._waiting[0].future.done():
            pending = self._waiting.popleft()
            if pending.future.cancelled():
                return
            if pending.stream is not None and not pending.stream.complete:
                pending.keep = False
                self._stop_reading()
            self._write(pending.future.result(), head_only=pending.head_only, keep=pending.keep)
        self._idle_since = self._owner.now
        self._flush()
        self._update_reading()

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
            self._close(self._transport)

    def _close(self, transport: asyncio.Transport) -> None:
        """Close; a client that still sends gets a moment to read its answer before the reset."""
        if self._ended or not self._unread:
            transport.close()
        elif self._linger_until is None:
            self._linger_until = self._owner.now + self._limits.linger_seconds
            transport.write_eof()

    def _broken(self, status: int, reason: str) -> None:
        """The request cannot be read any further: tell its handler, or answer for it; then close."""
        self._stop_reading()
        if self._streaming is not None and self._streaming.stream is not None:
            self._streaming.stream.fail(BodyError(status, reason))
        else:
            self._answer(self._owner.refusal(status, reason), head_only=False, keep=False)
            self._flush()

    def _stop_reading(self) -> None:
        """What still comes is thrown away."""
        self._closing = self._unread = True
        self._reader.started = None
        self._update_reading()

    def _update_reading(self) -> None:
        """Read only while answers leave and handlers take what has come."""
        if self._transport is None:
            return
        wait = not self._closing and (
            self._blocked_since is not None
            or len(self._waiting) >= self._limits.pipelined
            or self._buffered > self._limits.buffered_bytes
        )
        if wait and self._paused_since is None:
            self._paused_since = self._owner.now
            self._transport.pause_reading()
        elif not wait and self._paused_since is not None:
            if self._reader.started is not None:
                self._reader.started += self._owner.now - self._paused_since
            self._paused_since = None
            self._transport.resume_reading()
