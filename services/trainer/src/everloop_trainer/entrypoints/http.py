"""The trainer's HTTP API: runs, observations, verification."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Protocol

from everloop_kernel import telemetry
from everloop_kernel.auth import Caller, require
from everloop_kernel.http import Problem, json_response, serial
from everloop_schemas.ids import derived_id
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everloop_trainer.application.consider import consider, policy_of
from everloop_trainer.application.ports import CrashedError, Decisions, Desk
from everloop_trainer.application.queries import Book, RunRecord
from everloop_trainer.application.verify import RawLogs, Rebuilds, verify
from everloop_trainer.domain import parameters
from everloop_trainer.domain.policy import decide, due_at, rests_until
from everloop_trainer.domain.runs import run_id_of

__all__ = ["Api", "routes"]

_PIPELINE = "/v1/pipelines/{pipeline}"
_LARGEST_BODY = 64 << 10
_LONGEST_REASON = 500
_MOST_RUNS = 200
_MOST_DIGITS = len(str(_MOST_RUNS))


class Requests(Decisions, Protocol):
    """A transaction that can keep a person's request."""

    async def signal(self, pipeline: str, kind: str, event_id: str, body: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Api:
    """What the routes need."""

    begin: Callable[[], AbstractAsyncContextManager[Requests]]
    book: Book
    logs: RawLogs
    rebuilds: Rebuilds
    one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A verification takes a core and the memory of a training."""


Page = Callable[[Api, Request], Awaitable[Response]]


def routes(api: Api) -> list[BaseRoute]:
    """Every route of the trainer."""
    return [
        _route(api, "/v1/runs", "GET", _runs),
        _route(api, "/v1/runs/{run_id}", "GET", _run),
        _route(api, _PIPELINE + "/runs", "POST", _ask_for_run),
        _route(api, _PIPELINE + "/training", "GET", _training),
        _route(api, _PIPELINE + "/observations/{id:path}", "GET", _observation),
        _route(api, _PIPELINE + "/models/{version}/verify", "POST", _verify),
    ]


def _route(api: Api, path: str, method: str, page: Page) -> Route:
    return Route(path, partial(page, api), methods=[method])


async def _runs(api: Api, request: Request) -> Response:
    caller = require(request, "reader")
    pipeline, limit = request.query_params.get("pipeline"), request.query_params.get("limit", "50")
    if not limit.isdecimal() or len(limit) > _MOST_DIGITS or not 1 <= int(limit) <= _MOST_RUNS:
        raise Problem(
            422, "Not a limit", f"limit is a whole number from 1 to {_MOST_RUNS}, not {limit[:40]!r}"
        )
    found = await api.book.runs(pipeline, int(limit))
    return json_response([_run_view(run) for run in found if caller.sees(run.pipeline)])


async def _run(api: Api, request: Request) -> Response:
    caller = require(request, "reader")
    run = await api.book.run(request.path_params["run_id"])
    if run is None or not caller.sees(run.pipeline):
        raise Problem(404, "No such run", "GET /v1/runs lists the runs there are")
    return json_response(_run_view(run))


async def _ask_for_run(api: Api, request: Request) -> Response:
    """Open a run now, or as soon as the active one has ended; the same Idempotency-Key asks once."""
    caller, pipeline = require(request, "operator"), request.path_params["pipeline"]
    wish = await _wish(request, caller)
    key = request.headers.get("idempotency-key") or uuid.uuid4().hex
    event_id = derived_id(f"{pipeline}\x1f{key}", "manual-run")
    run_id = run_id_of(event_id)
    if await api.book.run(run_id) is None:
        async with api.begin() as work:
            desk = await work.desk(pipeline)
            if desk is None:
                raise _no_pipeline(pipeline)
            if not desk.progress:
                raise Problem(
                    409, "Nothing to train on", f"No record of {pipeline} has arrived yet: send some first"
                )
            await work.signal(pipeline, "manual", event_id, wish)
            await consider(pipeline, work, telemetry.traceparent())
    return json_response({"run_id": run_id}, 202, {"Location": f"/v1/runs/{run_id}"})


async def _wish(request: Request, caller: Caller) -> dict[str, Any]:
    body = await request.body()
    if len(body) > _LARGEST_BODY:
        raise Problem(413, "Too large", f"A request for a run has at most {_LARGEST_BODY} bytes")
    try:
        wish = json.loads(body or b"{}")
    except ValueError as error:
        raise Problem(400, "Not JSON", f"Send an object with reason and parameters: {error}") from error
    if not isinstance(wish, dict) or set(wish) - {"reason", "parameters"}:
        raise Problem(
            422, "Not a request for a run", "Send an object with reason (text) and parameters (object)"
        )
    reason, overrides = wish.get("reason") or f"asked for by {caller.name}", wish.get("parameters") or {}
    if not isinstance(reason, str) or len(reason) > _LONGEST_REASON or not isinstance(overrides, dict):
        raise Problem(
            422, "Not a request for a run", "reason is text of up to 500 characters, parameters an object"
        )
    try:
        parameters.check(overrides)
    except parameters.UnknownParameterError as error:
        raise Problem(422, "Not a parameter", str(error)) from error
    return {"reason": reason, "parameters": overrides}


async def _training(api: Api, request: Request) -> Response:
    """Where a pipeline stands: what has come since the last run, and what the next one waits for."""
    require(request, "reader")
    pipeline = request.path_params["pipeline"]
    desk = await _require_pipeline(api, pipeline)
    now, policy = desk.situation, policy_of(desk.definition.pipeline)
    return json_response(
        {
            "pipeline": pipeline,
            "pipeline_version": desk.definition.version,
            "pipeline_time": now.pipeline_time,
            "labels": now.labels,
            "new_labels": now.new_labels,
            "new_labels_wanted": policy.new_labelled_rows,
            "rests_until": rests_until(policy, now),
            "due_at": due_at(policy, now),
            "unseen_labels": now.unseen,
            "active": now.active,
            "pending_drift": now.drift is not None,
            "blocked": now.blocked,
            "waiting_for": decide(policy, now).why,
        }
    )


async def _observation(api: Api, request: Request) -> Response:
    require(request, "reader")
    pipeline, wanted = request.path_params["pipeline"], request.path_params["id"]
    found = await api.book.find(pipeline, wanted)
    if found is None:
        raise _no_pipeline(pipeline)
    version = request.query_params.get("pipeline_version")
    vectors = [v for v in found.vectors if version is None or str(v["pipeline_version"]) == version]
    if found.observation is None and found.label is None:
        raise Problem(
            404, "No such observation", f"Nothing with the id {wanted[:100]!r} has reached the trainer"
        )
    vector = vectors[0] if vectors else None
    return json_response(
        {
            "id": wanted,
            "observation": found.observation,
            "vector": vector,
            "label": found.label,
            "retraction": found.retraction,
        }
    )


async def _verify(api: Api, request: Request) -> Response:
    require(request, "operator")
    pipeline, version = request.path_params["pipeline"], serial(request, "version")
    made = await api.book.made(pipeline, version)
    if made is None:
        await _require_pipeline(api, pipeline)
        raise Problem(404, "No such model", f"This trainer has made no version {version} of {pipeline}")
    async with api.one_at_a_time:
        try:
            verification = await verify(made, f"verify-{uuid.uuid4().hex}", api.logs, api.rebuilds)
        except CrashedError as error:
            raise Problem(500, "Could not rebuild", f"The rebuilding process died: {error}") from error
    return json_response({"pipeline": pipeline, "model_version": version, **asdict(verification)})


async def _require_pipeline(api: Api, pipeline: str) -> Desk:
    async with api.begin() as work:
        desk = await work.desk(pipeline)
    if desk is None:
        raise _no_pipeline(pipeline)
    return desk


def _no_pipeline(pipeline: str) -> Problem:
    return Problem(
        404, "No such pipeline", f"The trainer knows no pipeline {pipeline!r}: apply its file first"
    )


def _run_view(run: RunRecord) -> dict[str, Any]:
    trained = run.outcome.trained if run.outcome else None
    failed = run.outcome.failed if run.outcome else None
    return {
        "run_id": run.run_id,
        "pipeline": run.pipeline,
        "pipeline_version": run.pipeline_version,
        "trigger": run.trigger.model_dump(),
        "state": run.state,
        "parameters": run.overrides,
        "cut": {str(partition): offset for partition, offset in run.cut.items()},
        "labels_at_cut": run.labels_at_cut,
        "pipeline_time": run.pipeline_time,
        "attempts": run.attempts,
        "model_version": run.model_version,
        "verdict": run.verdict,
        "trained": None if trained is None else trained.model_dump(mode="json", exclude={"profile"}),
        "failed": None if failed is None else failed.model_dump(),
        "created_at": run.created_at,
        "ended_at": run.ended_at,
    }
