"""The HTTP API: Open Inference Protocol v2, the plain JSON route, health and metrics."""

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from everloop_kernel.http_message import Deferred, Request, Response, json_response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from everloop_serving.application.models import Models
from everloop_serving.application.repository import Repository
from everloop_serving.entrypoints.access import Access
from everloop_serving.entrypoints.content import unpack
from everloop_serving.entrypoints.errors import Errors
from everloop_serving.entrypoints.infer_http import Inference
from everloop_serving.entrypoints.model_metadata import (
    model_config,
    model_metadata,
    server_metadata,
    statistics,
)
from everloop_serving.entrypoints.openapi import DOCUMENT
from everloop_serving.entrypoints.repository_http import RepositoryRoutes
from everloop_serving.metrics import HotMetrics

__all__ = ["Reporting", "Routes"]

_MOST_PARTS = 8


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
    ("openapi.json",): "openapi",
    ("v2", "models", "stats"): "all-stats",
    ("v2", "repository", "index"): "index",
}
_MODEL_KINDS: dict[tuple[str, ...], str] = {
    (): "model",
    ("ready",): "model-ready",
    ("infer",): "infer",
    ("config",): "config",
    ("stats",): "stats",
}
_OPEN = frozenset({"live", "ready", "metrics"})
_POSTED = frozenset({"infer", "predict", "online", "index", "load", "unload"})


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
        case ("v2", "repository", "models", model, ("load" | "unload") as kind):
            return Target(kind, model)
        case ("v1", "pipelines", pipeline, ("predict" | "online") as kind):
            return Target(kind, pipeline)
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
        errors: Errors,
        *,
        components: Sequence[Reporting],
        metrics: HotMetrics,
        most_body_bytes: int,
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._most_body_bytes = most_body_bytes
        repository = RepositoryRoutes(Repository(models), access)
        self._access = access
        self._errors = errors
        self._components = components
        self._posted = {
            "infer": inference.infer,
            "predict": inference.predict,
            "online": inference.online,
            "index": repository.index,
            "load": repository.load,
            "unload": repository.unload,
        }
        self._getters: dict[str, Callable[[Target], Response]] = {
            "server": lambda _: json_response(server_metadata()),
            "live": lambda _: json_response({"status": "live", "live": True}),
            "ready": lambda _: self._ready(),
            "metrics": lambda _: Response(generate_latest(), content_type=CONTENT_TYPE_LATEST.encode()),
            "model": lambda target: json_response(self._metadata(target)),
            "model-ready": self._model_ready,
            "config": lambda target: json_response(model_config(models.version(*target[1:]))),
            "stats": lambda target: json_response(self._statistics(target)),
            "openapi": lambda _: json_response(DOCUMENT),
        }

    def __call__(self, request: Request) -> "Response | Awaitable[Response]":
        """Answer at once, or with an awaitable for a request of many rows."""
        try:
            answer = self._route(request)
        except Exception as error:  # noqa: BLE001  (`Errors` tells ours from the caller's)
            return self._errors.of(error)
        return answer if isinstance(answer, Response | Deferred) else self._guarded(answer)

    async def _guarded(self, answer: Awaitable[Response]) -> Response:
        try:
            return await answer
        except Exception as error:  # noqa: BLE001  (same)
            return self._errors.of(error)

    def _route(self, request: Request) -> "Response | Awaitable[Response]":
        target = resolve(request.target)
        if target is None:
            return self._errors.refuse("not-found", 404, "there is no such resource; see /v2")
        if target.kind in _POSTED:
            if request.method != b"POST":
                return self._errors.refuse("method", 405, "only POST is answered here", (b"allow", b"POST"))
            self._access.check(request.headers, target.model)
            unpack(request, most_bytes=self._most_body_bytes)
            return self._posted[target.kind](request, target.model, target.version)
        if request.method not in (b"GET", b"HEAD"):
            return self._errors.refuse("method", 405, "only GET is answered here", (b"allow", b"GET, HEAD"))
        if target.kind == "all-stats":
            return self._all_statistics(request)
        if target.kind not in _OPEN:
            self._access.check(request.headers, target.model)
        return self._getters[target.kind](target)

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

    def _statistics(self, target: Target) -> dict[str, Any]:
        self._models.version(target.model, target.version)
        return statistics(self._models, self._metrics, [target.model], target.version)

    def _all_statistics(self, request: Request) -> Response:
        """Of every model that the caller sees; a pipeline named `stats` gives its name to this route."""
        self._access.check(request.headers, "")
        names = [name for name in self._models if self._access.sees(request.headers, name)]
        return json_response(statistics(self._models, self._metrics, names, None))

    def _model_ready(self, target: Target) -> Response:
        model = self._models.version(target.model, target.version)
        return json_response({"name": model.name, "ready": True})
