"""What every HTTP request leaves behind: a count, its seconds, a span that continues the caller's trace."""

import time
from typing import Final

from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from everloop_kernel import telemetry
from everloop_kernel.metrics import HTTP_REQUESTS, HTTP_SECONDS

__all__ = ["Instrumentation"]

_SERVER_ERROR: Final = 500
_UNTRACED: Final = ("/health/", "/metrics")


class Instrumentation:
    """ASGI middleware. Paths are reported as their route's pattern, so that ids make no new time series."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and record it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif telemetry.enabled() and not scope["path"].startswith(_UNTRACED):
            await self._traced(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        parent = telemetry.extract((name.decode("latin-1"), value) for name, value in scope["headers"])
        attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
        with telemetry.span(scope["method"], attributes, kind=SpanKind.SERVER, parent=parent) as current:
            status = await self._counted(scope, receive, send)
            current.update_name(f"{scope['method']} {_pattern(scope)}")
            current.set_attribute("http.route", _pattern(scope))
            current.set_attribute("http.response.status_code", status)
            if status >= _SERVER_ERROR:
                current.set_status(Status(StatusCode.ERROR))

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> int:
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
            HTTP_REQUESTS.labels(_pattern(scope), scope["method"], str(status)).inc()
            HTTP_SECONDS.labels(_pattern(scope)).observe(time.perf_counter() - begin)
        return status


def _pattern(scope: Scope) -> str:
    """The path's route, which the router leaves in the scope once it has found it."""
    return str(getattr(scope.get("route"), "path", "unknown"))
