"""The HTTP API: Open Inference Protocol v2, the plain JSON route, health and metrics."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from everloop_kernel.errors import one_line
from everloop_kernel.http_message import Request, Response, json_response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from everloop_serving.application.models import ModelNotReady, Models, UnknownModel
from everloop_serving.domain.tensors import InvalidInput
from everloop_serving.entrypoints.access import Access, Refused
from everloop_serving.entrypoints.infer_http import Inference
from everloop_serving.entrypoints.model_metadata import model_metadata, server_metadata
from everloop_serving.metrics import HotMetrics

__all__ = ["Reporting", "Routes", "error_response"]

_MOST_PARTS = 8
_log = logging.getLogger(__name__)


def error_response(status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
    """An error as the Open Inference Protocol writes it."""
    answer = json_response({"error": message}, status)
    answer.headers += headers
    return answer


class Reporting(Protocol):
    """Whatever can say whether it is ready."""

    def not_ready(self) -> str | None:
        """None when ready, else why not."""
        ...


class Target(NamedTuple):
    """What a path means: the kind of resource, its model and version."""

    kind: str
    model: str = ""
    version: str | None = None


_FIXED = {
    ("v2",): "server",
    ("v2", "health", "live"): "live",
    ("v2", "health", "ready"): "ready",
    ("health", "live"): "live",
    ("health", "ready"): "ready",
    ("metrics",): "metrics",
}
_MODEL_KINDS: dict[tuple[str, ...], str] = {(): "model", ("ready",): "model-ready", ("infer",): "infer"}
_OPEN = frozenset({"live", "ready", "metrics"})
_POSTED = frozenset({"infer", "predict", "online"})


@lru_cache(maxsize=512)
def resolve(target: bytes) -> Target | None:
    """What a request target names, or None."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):  # absolute form, as a proxy sends it
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    try:
        parts = tuple(unquote_to_bytes(part).decode() for part in path.strip(b"/").split(b"/", _MOST_PARTS))
    except UnicodeDecodeError:
        return None
    fixed = _FIXED.get(parts)
    if fixed is not None:
        return Target(fixed)
    match parts:
        case ("v2", "models", model, *rest):
            return _model_target(model, rest)
        case ("v1", "pipelines", pipeline, "predict"):
            return Target("predict", pipeline)
        case ("v1", "pipelines", pipeline, "online"):
            return Target("online", pipeline)
    return None


def _model_target(model: str, rest: Sequence[str]) -> Target | None:
    version = None
    if len(rest) > 1 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
    kind = _MODEL_KINDS.get(tuple(rest))
    return None if kind is None else Target(kind, model, version)


class Routes:
    """Answers requests; every failure becomes an error that names the mistake."""

    def __init__(
        self,
        models: Models,
        inference: Inference,
        access: Access,
        metrics: HotMetrics,
        components: Sequence[Reporting],
    ) -> None:
        self._models = models
        self._access = access
        self._metrics = metrics
        self._components = components
        self._posted = {
            "infer": inference.infer,
            "predict": inference.predict,
            "online": inference.online,
        }
        self._getters: dict[str, Callable[[Target], Response]] = {
            "server": lambda _: json_response(server_metadata()),
            "live": lambda _: json_response({"status": "live", "live": True}),
            "ready": lambda _: self._ready(),
            "metrics": lambda _: Response(generate_latest(), content_type=CONTENT_TYPE_LATEST.encode()),
            "model": lambda target: json_response(self._metadata(target)),
            "model-ready": self._model_ready,
        }

    def __call__(self, request: Request) -> "Response | Awaitable[Response]":
        """Answer at once, or with an awaitable for a request of many rows."""
        try:
            answer = self._route(request)
        except Exception as error:  # noqa: BLE001  (`_failure` tells ours from the caller's)
            return self._failure(error)
        return answer if isinstance(answer, Response) else self._guarded(answer)

    async def _guarded(self, answer: Awaitable[Response]) -> Response:
        try:
            return await answer
        except Exception as error:  # noqa: BLE001  (same)
            return self._failure(error)

    def _route(self, request: Request) -> "Response | Awaitable[Response]":
        target = resolve(request.target)
        if target is None:
            return self._error("not-found", 404, "there is no such resource; see /v2")
        if target.kind in _POSTED:
            if request.method != b"POST":
                return self._error("method", 405, "only POST is answered here", (b"allow", b"POST"))
            self._access.check(request.headers, target.model)
            _check_content(request)
            return self._posted[target.kind](request, target.model, target.version)
        if request.method not in (b"GET", b"HEAD"):
            return self._error("method", 405, "only GET is answered here", (b"allow", b"GET, HEAD"))
        if target.kind not in _OPEN:
            self._access.check(request.headers, target.model)
        return self._getters[target.kind](target)

    def _failure(self, error: Exception) -> Response:
        match error:
            case InvalidInput():
                return self._error("invalid", 400, str(error))
            case UnknownModel():
                return self._error("unknown-model", 404, error.args[0])
            case ModelNotReady():
                return self._error("not-ready", 503, str(error), (b"retry-after", b"1"))
            case Refused():
                return self._error(error.kind, error.status, str(error), *error.headers)
            case _UnsupportedContent():
                return self._error("content-type", 415, str(error))
        _log.error("a request failed: %s", one_line(error), exc_info=error)
        return self._error("internal", 500, "the request could not be answered; the service's log says why")

    def _error(self, kind: str, status: int, message: str, *headers: tuple[bytes, bytes]) -> Response:
        self._metrics.refused("http", kind)
        return error_response(status, message, *headers)

    def _ready(self) -> Response:
        """200 when all components are ready, else 503; both list them."""
        reports: list[dict[str, Any]] = []
        for component in self._components:
            reason = component.not_ready()
            name = getattr(component, "name", type(component).__name__)
            reports.append({"name": name, "ready": reason is None, **({"reason": reason} if reason else {})})
        ready = all(report["ready"] for report in reports)
        status = "ready" if ready else "not-ready"
        return json_response({"status": status, "ready": ready, "components": reports}, 200 if ready else 503)

    def _metadata(self, target: Target) -> dict[str, Any]:
        model = self._models.version(target.model, target.version)
        arms = self._models.arms(target.model)
        return model_metadata(model, [] if arms is None else sorted(arms.by_version))

    def _model_ready(self, target: Target) -> Response:
        model = self._models.version(target.model, target.version)
        return json_response({"name": model.name, "ready": True})


class _UnsupportedContent(Exception):  # noqa: N818  (the caller's mistake)
    """The body is of a kind that is not read."""


def _check_content(request: Request) -> None:
    kind = request.headers.get(b"content-type")
    if kind is not None and not kind.lower().startswith((b"application/json", b"application/octet-stream")):
        raise _UnsupportedContent("send the body as application/json")
    encoding = request.headers.get(b"content-encoding", b"identity")
    if encoding.lower() != b"identity":
        raise _UnsupportedContent("send the body without a content encoding")
