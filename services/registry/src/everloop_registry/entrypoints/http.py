"""The registry's HTTP API: pipelines, models, decisions, history."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from aiokafka.errors import KafkaError
from everloop_kernel.auth import Caller, require
from everloop_kernel.errors import EverloopError, one_line
from everloop_kernel.http import Problem, json_response
from everloop_kernel.recorder.failures import TRANSIENT
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everloop_registry.application.decide import approve, reject
from everloop_registry.application.define_pipeline import define_pipeline
from everloop_registry.application.deploy import Wish, known_model, pin, roll_back, unpin
from everloop_registry.application.errors import NotFound, Refused
from everloop_registry.application.ports import Book, Office, Topics
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.pipelines import PipelineVersion
from everloop_registry.entrypoints.bodies import Decided, read_pipeline, read_wish
from everloop_registry.entrypoints.catalog import catalog_view, changes_view
from everloop_registry.entrypoints.views import (
    deployment_view,
    history_view,
    lineage_view,
    model_view,
    pipeline_view,
)

__all__ = ["Api", "routes"]

_PROFILES = 12
"""Trainings whose data the catalog shows."""
_PIPELINE = "/v1/pipelines/{pipeline}"
_MODEL = _PIPELINE + "/models/{version:int}"

_RETRY = {"Retry-After": "5"}

_log = logging.getLogger(__name__)

Page = Callable[["Api", Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes need: a transaction when asked for one, the office, the topics, the public keys."""

    begin: Callable[[], AbstractAsyncContextManager[Book]]
    office: Office
    topics: Topics
    public_keys: dict[str, str]


def routes(api: Api) -> list[BaseRoute]:
    """Every route of the registry."""
    return [
        _route(api, "/v1/keys", "GET", _keys),
        _route(api, "/v1/pipelines", "GET", _pipelines),
        _route(api, _PIPELINE, "GET", _pipeline),
        _route(api, _PIPELINE, "PUT", _put_pipeline),
        _route(api, _PIPELINE + "/versions/{version:int}", "GET", _pipeline_version),
        _route(api, _PIPELINE + "/catalog", "GET", _catalog),
        _route(api, _PIPELINE + "/versions/{version:int}/changes/{after:int}", "GET", _changes),
        _route(api, _PIPELINE + "/models", "GET", _models),
        _route(api, _MODEL, "GET", _model),
        _route(api, _MODEL + "/approve", "POST", _approve),
        _route(api, _MODEL + "/reject", "POST", _reject),
        _route(api, _PIPELINE + "/rollback", "POST", _roll_back),
        _route(api, _PIPELINE + "/pins/{version:int}", "POST", _pin),
        _route(api, _PIPELINE + "/pins/{version:int}", "DELETE", _unpin),
        _route(api, _PIPELINE + "/deployment", "GET", _deployment),
        _route(api, _PIPELINE + "/history", "GET", _history),
    ]


def _route(api: Api, path: str, method: str, page: Page) -> Route:
    return Route(path, partial(_answer, api, page), methods=[method], name=f"{method} {path}")


async def _answer(api: Api, page: Page, request: Request) -> Response:
    try:
        return await page(api, request)
    except NotFound as error:
        raise Problem(404, "Not found", str(error)) from error
    except Refused as error:
        raise Problem(409, "Refused", f"{error.refusal.reason}: {error.refusal.mend}.") from error
    except (*TRANSIENT, KafkaError, EverloopError) as error:
        _log.warning("%s %s: %s", request.method, request.url.path, one_line(error))
        detail = "PostgreSQL or Kafka cannot do this now; nothing was changed. Try again."
        raise Problem(503, "Unavailable", f"{detail} ({one_line(error)})", headers=_RETRY) from error


async def _keys(api: Api, request: Request) -> Response:
    require(request, "reader")
    keys = [
        {"key_id": key_id, "algorithm": "Ed25519", "public_key": public, "use": "deployments"}
        for key_id, public in api.public_keys.items()
    ]
    return json_response({"keys": keys})


async def _pipelines(api: Api, request: Request) -> Response:
    caller = require(request, "reader")
    async with api.begin() as book:
        versions = await book.pipelines()
    seen = [pipeline_view(version, whole=False) for version in versions if caller.sees(version.pipeline)]
    return json_response({"pipelines": seen})


async def _pipeline(api: Api, request: Request) -> Response:
    require(request, "reader")
    async with api.begin() as book:
        versions = await book.pipeline_versions(_name(request))
    if not versions:
        raise _no_pipeline(request)
    past = [pipeline_view(version, whole=False) for version in versions]
    return json_response({**pipeline_view(versions[0]), "versions": past})


async def _pipeline_version(api: Api, request: Request) -> Response:
    require(request, "reader")
    wanted: int = request.path_params["version"]
    async with api.begin() as book:
        version = await book.pipeline_version(_name(request), wanted)
    if version is None:
        raise NotFound(f"pipeline {_name(request)!r} has no version {wanted}")
    return json_response(pipeline_view(version))


async def _catalog(api: Api, request: Request) -> Response:
    require(request, "reader")
    async with api.begin() as book:
        await _known_pipeline(book, request)
        versions = await book.pipeline_versions(_name(request))
        models = await book.models(_name(request))
        deployment = await book.deployment(_name(request))
        profiles = await book.profiles(_name(request), _PROFILES)
    return json_response(catalog_view(versions, models, deployment, profiles))


async def _changes(api: Api, request: Request) -> Response:
    require(request, "reader")
    found = []
    async with api.begin() as book:
        for wanted in (request.path_params["version"], request.path_params["after"]):
            version = await book.pipeline_version(_name(request), wanted)
            if version is None:
                raise NotFound(f"pipeline {_name(request)!r} has no version {wanted}")
            found.append(version)
    return json_response(changes_view(*found))


async def _put_pipeline(api: Api, request: Request) -> Response:
    caller = require(request, "operator")
    pipeline = await read_pipeline(request)
    async with api.begin() as book:
        defined = await define_pipeline(
            pipeline, by=caller.name, work=book, topics=api.topics, clock=api.office.clock
        )
    outcome = "created" if defined.created else "unchanged"
    view = {**pipeline_view(defined.version, whole=False), "outcome": outcome}
    return json_response(view, status=201 if defined.created else 200)


async def _models(api: Api, request: Request) -> Response:
    require(request, "reader")
    async with api.begin() as book:
        await _known_pipeline(book, request)
        models = await book.models(_name(request))
        deployment = await book.deployment(_name(request))
    return json_response({"models": [model_view(model, deployment) for model in models]})


async def _model(api: Api, request: Request) -> Response:
    require(request, "reader")
    async with api.begin() as book:
        model = await known_model(book, _name(request), request.path_params["version"])
        view = lineage_view(
            model,
            await book.deployment(model.pipeline),
            await book.pipeline_version(model.pipeline, model.trained.pipeline_version),
            await book.audit(model.pipeline),
            await book.loads(model.pipeline),
        )
    return json_response(view)


async def _approve(api: Api, request: Request) -> Response:
    wish, decided = await _wish(request)
    version = request.path_params["version"]
    async with api.begin() as book:
        after = await approve(book, api.office, wish, version, override=decided.override)
    return _changed(after)


async def _reject(api: Api, request: Request) -> Response:
    wish, _ = await _wish(request)
    async with api.begin() as book:
        after = await reject(book, api.office, wish, request.path_params["version"])
    return _changed(after)


async def _roll_back(api: Api, request: Request) -> Response:
    wish, _ = await _wish(request)
    async with api.begin() as book:
        await _known_pipeline(book, request)
        after = await roll_back(book, api.office, wish)
    return _changed(after)


async def _pin(api: Api, request: Request) -> Response:
    wish, _ = await _wish(request)
    async with api.begin() as book:
        after = await pin(book, api.office, wish, request.path_params["version"])
    return _changed(after)


async def _unpin(api: Api, request: Request) -> Response:
    wish, _ = await _wish(request)
    async with api.begin() as book:
        after = await unpin(book, api.office, wish, request.path_params["version"])
    return _changed(after)


async def _deployment(api: Api, request: Request) -> Response:
    require(request, "reader")
    async with api.begin() as book:
        await _known_pipeline(book, request)
        view = deployment_view(await book.deployment(_name(request)), await book.loads(_name(request)))
    return json_response(view)


async def _history(api: Api, request: Request) -> Response:
    require(request, "reader")
    async with api.begin() as book:
        await _known_pipeline(book, request)
        entries = await book.audit(_name(request))
    return json_response(history_view(entries))


async def _wish(request: Request) -> tuple[Wish, Decided]:
    caller = require(request, "operator")
    decided = await read_wish(request)
    return Wish(_name(request), _actor(caller, decided), decided.reason), decided


def _actor(caller: Caller, decided: Decided) -> str:
    """Name the token's owner; whom they say they act for is added, never put in its place."""
    return caller.name if decided.by in (None, caller.name) else f"{decided.by} ({caller.name})"


def _changed(deployment: Deployment) -> Response:
    return json_response(deployment_view(deployment, []))


async def _known_pipeline(book: Book, request: Request) -> PipelineVersion:
    version = await book.current_pipeline(_name(request))
    if version is None:
        raise _no_pipeline(request)
    return version


def _no_pipeline(request: Request) -> NotFound:
    return NotFound(f"no pipeline is named {_name(request)!r}; `everloop apply` its file first")


def _name(request: Request) -> str:
    name: str = request.path_params["pipeline"]
    return name
