"""What every HTTP request leaves behind: a count, its seconds, and a server span that continues the caller's trace."""

import time
from collections.abc import Sequence
from typing import Final

from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everloop_kernel import telemetry
from everloop_kernel.metrics import HTTP_REQUESTS, HTTP_SECONDS

__all__ = ["Instrumentation"]

_SERVER_ERROR: Final = 500
_UNTRACED: Final = ("/health/", "/metrics")


class Instrumentation:
    """ASGI middleware. Paths are reported as their route's pattern, so that ids make no new time series."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and record it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._pattern(scope)
        if telemetry.enabled() and not scope["path"].startswith(_UNTRACED):
            await self._traced(route, scope, receive, send)
        else:
            await self._counted(route, scope, receive, send)

    async def _traced(self, route: str, scope: Scope, receive: Receive, send: Send) -> None:
        parent = telemetry.extract((name.decode("latin-1"), value) for name, value in scope["headers"])
        attributes = {"http.request.method": scope["method"], "http.route": route, "url.path": scope["path"]}
        with telemetry.span(
            f"{scope['method']} {route}", attributes, kind=SpanKind.SERVER, parent=parent
        ) as current:
            status = await self._counted(route, scope, receive, send)
            current.set_attribute("http.response.status_code", status)
            if status >= _SERVER_ERROR:
                current.set_status(Status(StatusCode.ERROR))

    async def _counted(self, route: str, scope: Scope, receive: Receive, send: Send) -> int:
        """Returns the answer's status; 500 when the application failed before it answered."""
        status = _SERVER_ERROR

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        begin = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        finally:
            HTTP_REQUESTS.labels(route, scope["method"], str(status)).inc()
            HTTP_SECONDS.labels(route).observe(time.perf_counter() - begin)
        return status

    def _pattern(self, scope: Scope) -> str:
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                return str(getattr(route, "path", "mounted"))
        return "unknown"
