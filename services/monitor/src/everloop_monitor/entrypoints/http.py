"""The monitor's HTTP API: live figures, drift, one prediction's outcome."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from everloop_kernel.auth import require
from everloop_kernel.http import Problem, json_response
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

__all__ = ["Pages", "routes"]


class Pages(Protocol):
    """What the pages read; `adapters.reports` is the real one."""

    async def task(self, pipeline: str) -> str | None:
        """`binary` or `number`; None for an unknown pipeline."""
        ...

    async def days(self, pipeline: str, task: str) -> list[dict[str, Any]]:
        """Figures by model version, arm and day."""
        ...

    async def verdicts(self, pipeline: str) -> list[dict[str, Any]]:
        """The newest judgement of each model and kind."""
        ...

    async def predictions(self, pipeline: str | None, identity: str) -> list[dict[str, Any]]:
        """Every answer given for one id."""
        ...


Page = Callable[[Pages, Request], Awaitable[Mapping[str, Any]]]


def routes(pages: Pages) -> list[BaseRoute]:
    """Every route of the monitor."""
    return [
        _route("/v1/pipelines/{pipeline}/performance", _performance, pages),
        _route("/v1/pipelines/{pipeline}/drift", _drift, pages),
        _route("/v1/predictions/{id:path}", _prediction, pages),
    ]


def _route(path: str, page: Page, pages: Pages) -> Route:
    return Route(path, partial(_answer, page, pages), methods=["GET"], name=path)


async def _answer(page: Page, pages: Pages, request: Request) -> Response:
    require(request, "reader")
    return json_response(await page(pages, request))


async def _performance(pages: Pages, request: Request) -> Mapping[str, Any]:
    pipeline, task = await _known(pages, request)
    return {"pipeline": pipeline, "task": task, "days": await pages.days(pipeline, task)}


async def _drift(pages: Pages, request: Request) -> Mapping[str, Any]:
    pipeline, _ = await _known(pages, request)
    return {"pipeline": pipeline, "verdicts": await pages.verdicts(pipeline)}


async def _prediction(pages: Pages, request: Request) -> Mapping[str, Any]:
    identity = request.path_params["id"]
    found = await pages.predictions(request.query_params.get("pipeline"), identity)
    if not found:
        raise Problem(
            404,
            "Not found",
            f"No prediction {identity!r} has reached the monitor; check the id, or ask again in a second.",
        )
    return {"predictions": found}


async def _known(pages: Pages, request: Request) -> tuple[str, str]:
    pipeline = request.path_params["pipeline"]
    task = await pages.task(pipeline)
    if task is None:
        raise Problem(
            404, "Not found", f"No pipeline {pipeline!r} is defined; `everloop pipelines` lists them."
        )
    return pipeline, task
