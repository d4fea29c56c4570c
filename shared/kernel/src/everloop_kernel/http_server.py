"""The HTTP server as a component: accepts, watches the clock, drains."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from email.utils import formatdate

from everloop_kernel.http_connection import Connection
from everloop_kernel.http_limits import Limits
from everloop_kernel.http_message import Handler, Refusal, Request, problem_response
from everloop_kernel.listen import bind
from everloop_kernel.settings import HttpSettings

__all__ = ["HttpServer", "Limits"]

_SWEEP_SECONDS = 1.0
_DRAIN_SECONDS = 20.0
_log = logging.getLogger(__name__)


class HttpServer:
    """Serves `handler` until it is stopped; then lets answers under way out.

    Args:
        http: where to listen.
        handler: answers requests.
        limits: what a connection may ask for.
        refusal: writes the errors of the server itself, such as 400 for what is no HTTP.
        streamed: says of a request's head whether it is handed over at once, to read its body as it arrives.
    """

    name = "http"

    def __init__(
        self,
        http: HttpSettings,
        handler: Handler,
        limits: Limits | None = None,
        *,
        refusal: Refusal = problem_response,
        streamed: Callable[[Request], bool] | None = None,
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.refusal = refusal
        self.streamed = streamed
        self.now = time.monotonic()
        self.date_header = b""
        self.draining = False
        self.ended = asyncio.Event()
        """Set when nothing is answered any more."""
        self._socket = bind(http)
        self._connections: set[Connection] = set()
        self._stop = asyncio.Event()
        self._tick()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def run(self) -> None:
        """Serve until `stop`, then drain."""
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), sock=self._socket, backlog=2048
        )
        _log.info("listening on http://%s:%s", *self._socket.getsockname()[:2])
        try:
            while not self._stop.is_set():
                await self._pause()
            server.close()
            await self._drain()
        finally:
            server.close()
            self.ended.set()

    def stop(self) -> None:
        """Accept no more; see `run`."""
        self.draining = True
        self._stop.set()

    def not_ready(self) -> str | None:
        """Ready unless it drains."""
        return "draining" if self.draining else None

    def opened(self, connection: Connection) -> bool:
        """Count a connection in, unless there are too many."""
        if len(self._connections) >= self.limits.connections:
            return False
        self._connections.add(connection)
        return True

    def closed(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), _SWEEP_SECONDS)
        self._tick()

    def _tick(self) -> None:
        """Renew the clock that connections read and end those whose time is up."""
        self.now = time.monotonic()
        self.date_header = b"date: %s\r\n" % formatdate(usegmt=True).encode()
        for connection in tuple(self._connections):
            connection.check_time(self.now)

    async def _drain(self) -> None:
        """Close each connection as soon as it has no answer under way."""
        end = time.monotonic() + _DRAIN_SECONDS
        while self._connections and time.monotonic() < end:
            self._tick()
            for connection in tuple(self._connections):
                connection.drain()
            await asyncio.sleep(0.02)
        for connection in tuple(self._connections):
            connection.abort()
