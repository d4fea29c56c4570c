"""Routes on the kernel's own HTTP server, with what every service's API has.

Authentication, health, metrics, a count and a span for each request, and every failure as problem details:

    routes = Router([Route("/v1/pipelines/{pipeline}/labels", {b"POST": labels})], tokens, health)
    server = HttpServer(settings, routes, streamed=routes.streamed)
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote_to_bytes

from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from everloop_kernel import telemetry
from everloop_kernel.auth import Caller, Role, Tokens, allow, identify, is_open
from everloop_kernel.errors import one_line
from everloop_kernel.health import Health
from everloop_kernel.http import Problem
from everloop_kernel.http_body import BodyError
from everloop_kernel.http_message import Request, Response, json_response, problem_response
from everloop_kernel.metrics import HTTP_REQUESTS, HTTP_SECONDS

__all__ = ["Call", "Endpoint", "Route", "Router"]

_MOST_PARTS: Final = 16
_REMEMBERED_TARGETS: Final = 2048
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request, with what its target names and who asks."""

    request: Request
    parameters: Mapping[str, str]
    caller: Caller

    def require(self, role: Role) -> Caller:
        """The caller, if it has `role` for the target's `{pipeline}`; raises `Problem` 403."""
        return allow(self.caller, role, self.parameters.get("pipeline"))

    def header(self, name: bytes) -> str | None:
        """A header's value as text (latin-1, as HTTP has it), or None."""
        value = self.request.headers.get(name)
        return None if value is None else value.decode("latin-1")


Endpoint = Callable[[Call], "Response | Awaitable[Response]"]
"""Answers a call at once or later; may raise `Problem`."""


@dataclass(frozen=True, slots=True)
class Route:
    """What one kind of path answers, by method. `pattern` is a path with parts such as `{pipeline}`."""

    pattern: str
    methods: Mapping[bytes, Endpoint]
    streams: bool = False
    """Whether the endpoint reads the body as it arrives."""
    parts: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.pattern.strip("/").split("/")))

    def match(self, parts: Sequence[str]) -> dict[str, str] | None:
        """The parameters of a path of this route, or None."""
        if len(parts) != len(self.parts):
            return None
        found: dict[str, str] = {}
        for wanted, part in zip(self.parts, parts, strict=True):
            if wanted.startswith("{"):
                found[wanted[1:-1]] = part
            elif wanted != part:
                return None
        return found


class _Found:
    """What a target names, and its time series."""

    def __init__(self, route: Route | None, parameters: Mapping[str, str], path: str) -> None:
        self.route = route
        self.parameters = parameters
        self.pattern = "unknown" if route is None else route.pattern
        self.open = is_open(path)
        self.seconds = HTTP_SECONDS.labels(self.pattern)


class Router:
    """The handler of a service's HTTP server."""

    def __init__(self, routes: Sequence[Route], tokens: Tokens, health: Health) -> None:
        self._routes = [*_admin(health), *routes]
        self._tokens = tokens
        self._found: dict[bytes, _Found] = {}

    def streamed(self, request: Request) -> bool:
        """For `HttpServer`: whether the endpoint reads the body as it arrives."""
        route = self._find(request.target).route
        return route is not None and route.streams and request.method in route.methods

    def __call__(self, request: Request) -> "Response | Awaitable[Response]":
        """Answer; never raises."""
        found = self._find(request.target)
        begin = time.perf_counter()
        if telemetry.enabled() and not found.open:
            return self._traced(found, request, begin)
        answer = self._answer(found, request)
        if isinstance(answer, Response):
            return _counted(answer, found, request.method, begin)
        return self._later(answer, found, request.method, begin)

    async def _later(
        self, answer: Awaitable[Response], found: _Found, method: bytes, begin: float
    ) -> Response:
        try:
            response = await answer
        except Exception as error:  # noqa: BLE001  (`_failed` tells ours from the caller's)
            response = _failed(error, found)
        return _counted(response, found, method, begin)

    async def _traced(self, found: _Found, request: Request, begin: float) -> Response:
        method = request.method.decode()
        parent = telemetry.extract([("traceparent", request.headers.get(b"traceparent"))])
        attributes = {"http.request.method": method, "http.route": found.pattern}
        name = f"{method} {found.pattern}"
        with telemetry.span(name, attributes, kind=SpanKind.SERVER, parent=parent) as span:
            answer = self._answer(found, request)
            if isinstance(answer, Response):
                response = _counted(answer, found, request.method, begin)
            else:
                response = await self._later(answer, found, request.method, begin)
            span.set_attribute("http.response.status_code", response.status)
            if response.status >= 500:  # noqa: PLR2004  (HTTP's number)
                span.set_status(Status(StatusCode.ERROR))
        return response

    def _answer(self, found: _Found, request: Request) -> "Response | Awaitable[Response]":
        try:
            return self._endpoint(found, request)
        except Exception as error:  # noqa: BLE001  (`_failed` tells ours from the caller's)
            return _failed(error, found)

    def _endpoint(self, found: _Found, request: Request) -> "Response | Awaitable[Response]":
        headers = request.headers
        if found.open:
            caller = _NOBODY
        else:
            authorization, origin = headers.get(b"authorization"), headers.get(b"origin")
            caller = identify(
                self._tokens,
                None if authorization is None else authorization.decode("latin-1"),
                None if origin is None else origin.decode("latin-1"),
            )
        if found.route is None:
            raise Problem(404, "Not Found", "There is no such path; see /openapi.json.")
        endpoint = found.route.methods.get(request.method)
        if endpoint is None and request.method == b"HEAD":
            endpoint = found.route.methods.get(b"GET")
        if endpoint is None:
            raise _not_allowed(found.route)
        return endpoint(Call(request, found.parameters, caller))

    def _find(self, target: bytes) -> _Found:
        found = self._found.get(target)
        if found is None:
            if len(self._found) >= _REMEMBERED_TARGETS:
                self._found.clear()
            found = self._found[target] = self._resolved(target)
        return found

    def _resolved(self, target: bytes) -> _Found:
        path = target.partition(b"?")[0]
        if not path.startswith(b"/"):  # absolute form, as a proxy sends it
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        try:
            parts = [unquote_to_bytes(part).decode() for part in path[1:].split(b"/", _MOST_PARTS)]
        except UnicodeDecodeError:
            return _Found(None, {}, "")
        for route in self._routes:
            parameters = route.match(parts)
            if parameters is not None:
                return _Found(route, parameters, "/" + "/".join(parts))
        return _Found(None, {}, "")


_NOBODY: Final = Caller("nobody", frozenset())


def _admin(health: Health) -> list[Route]:
    """Health and metrics."""

    def ready(_call: Call) -> Response:
        status, body = health.report()
        return json_response(body, status)

    getters: dict[str, Endpoint] = {
        "/health/live": lambda _: json_response({"status": "live"}),
        "/health/ready": ready,
        "/metrics": lambda _: Response(generate_latest(), content_type=CONTENT_TYPE_LATEST.encode()),
    }
    return [Route(pattern, {b"GET": getter}) for pattern, getter in getters.items()]


def _not_allowed(route: Route) -> Problem:
    allowed = ", ".join(sorted(method.decode() for method in route.methods))
    return Problem(
        405, "Method Not Allowed", f"{allowed} is answered at this path.", headers={"Allow": allowed}
    )


def _failed(error: Exception, found: _Found) -> Response:
    """A problem of the caller's as such; a defect of ours without its inner workings, which the log has."""
    if isinstance(error, Problem):
        headers = [(name.encode(), value.encode()) for name, value in (error.headers or {}).items()]
        return problem_response(error.status, error.detail, *headers, title=error.title, **error.extra)
    if isinstance(error, BodyError):
        return problem_response(error.status, f"{error}.")
    _log.error("%s failed: %s", found.pattern, one_line(error), exc_info=error)
    detail = "The request could not be answered; the service's log says why."
    return problem_response(500, detail, title="Internal error")


def _counted(response: Response, found: _Found, method: bytes, begin: float) -> Response:
    HTTP_REQUESTS.labels(found.pattern, method.decode(), str(response.status)).inc()
    found.seconds.observe(time.perf_counter() - begin)
    return response
