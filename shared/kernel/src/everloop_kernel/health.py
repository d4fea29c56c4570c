"""`/health/live`, `/health/ready` and `/metrics`.

Live: the process answers. Ready: every component says so; otherwise 503 with each one's reason.
"""

from collections.abc import Sequence
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everloop_kernel.http import json_response

__all__ = ["Health", "Reporting", "routes"]


class Reporting(Protocol):
    """Whatever can say whether it is ready."""

    def not_ready(self) -> str | None:
        """None when ready, else why not."""
        ...


class Health:
    """The readiness of a process: that of its components, and not while it drains."""

    def __init__(self, components: Sequence[Reporting]) -> None:
        self._components = components
        self.draining = False

    async def live(self, _request: Request) -> Response:
        """The process runs and its event loop turns."""
        return json_response({"status": "live"})

    async def ready(self, _request: Request) -> Response:
        """200 when all components are ready, else 503; both list them."""
        status, body = self.report()
        return json_response(body, status)

    def report(self) -> tuple[int, dict[str, object]]:
        """HTTP's status, and each component's readiness with its reason."""
        reports = [_report(component) for component in self._components]
        ready = not self.draining and all(report["ready"] for report in reports)
        status = "draining" if self.draining else "ready" if ready else "not-ready"
        return 200 if ready else 503, {"status": status, "components": reports}


def _report(component: Reporting) -> dict[str, object]:
    reason = component.not_ready()
    name = getattr(component, "name", None)
    label = name if isinstance(name, str) else type(component).__name__
    return {"name": label, "ready": reason is None, **({} if reason is None else {"reason": reason})}


async def _metrics(_request: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def routes(health: Health) -> list[BaseRoute]:
    """The routes that every service has."""
    return [
        Route("/health/live", health.live),
        Route("/health/ready", health.ready),
        Route("/metrics", _metrics),
    ]
