"""The HTTP edge: `POST /v1/pipelines/{pipeline}/observations` and `/labels`, each also with `/check`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from everloop_kernel import telemetry
from everloop_kernel.auth import Caller, require
from everloop_kernel.http import Problem, json_response
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from everloop_ingest.application.reading import LONGEST_SOURCE
from everloop_ingest.application.submitting import InboundRecord, Publish, Sender, Unavailable, submit
from everloop_ingest.domain.contract import Contract, Kind
from everloop_ingest.entrypoints.body import Budget, expected_size, read_body, rows_of
from everloop_ingest.metrics import HTTP_RECORDS

__all__ = ["Edge", "routes"]

_DEFAULT_SOURCE: Final = "http"
_BAD_SYNTAX: Final = frozenset({"malformed-json", "invalid-utf8", "not-an-object", "too-deep"})


@dataclass(frozen=True, slots=True)
class Edge:
    """What the routes need."""

    get: Callable[[str], Contract | None]
    """The contract of a pipeline."""
    knows_all: Callable[[], bool]
    """Whether the list of pipelines is complete, so that an unknown one does not exist."""
    publish: Publish
    max_body_bytes: int
    budget: Budget


def routes(edge: Edge) -> list[BaseRoute]:
    """The edge's routes."""

    async def observations(request: Request) -> Response:
        return await _receive(edge, request, "observation")

    async def labels(request: Request) -> Response:
        return await _receive(edge, request, "label")

    async def check_observations(request: Request) -> Response:
        return await _receive(edge, request, "observation", check_only=True)

    async def check_labels(request: Request) -> Response:
        return await _receive(edge, request, "label", check_only=True)

    base = "/v1/pipelines/{pipeline}"
    return [
        Route(f"{base}/observations", observations, methods=["POST"]),
        Route(f"{base}/observations/check", check_observations, methods=["POST"]),
        Route(f"{base}/labels", labels, methods=["POST"]),
        Route(f"{base}/labels/check", check_labels, methods=["POST"]),
    ]


async def _receive(edge: Edge, request: Request, kind: Kind, *, check_only: bool = False) -> Response:
    """Check, publish, answer: 202 only after the broker has acknowledged; `check_only` publishes nothing."""
    sender = _sender(request, require(request, "producer"))
    contract = _contract(edge, request.path_params["pipeline"])
    with edge.budget.hold(expected_size(request, edge.max_body_bytes)):
        rows = rows_of(request, await read_body(request, edge.max_body_bytes))
        try:
            results = await submit(
                contract, kind, rows, sender, clock=_now, publish=_discard if check_only else edge.publish
            )
        except Unavailable as error:
            raise _unavailable(str(error)) from error
    if check_only:
        return json_response(_summary(results))
    return _answer(contract.pipeline, results)


async def _discard(topic: str, records: Sequence[InboundRecord]) -> None:
    """Publish nothing: whoever asks wants to know what would be refused."""


def _now() -> datetime:
    return datetime.now(UTC)


def _contract(edge: Edge, pipeline: str) -> Contract:
    contract = edge.get(pipeline)
    if contract is None and not edge.knows_all():
        raise _unavailable("The list of pipelines is not read yet")
    if contract is None:
        raise Problem(
            404,
            "Unknown pipeline",
            f"There is no pipeline {pipeline!r}; apply its file with `everloop apply`.",
        )
    return contract


def _unavailable(reason: str) -> Problem:
    return Problem(
        503,
        "Not available",
        f"{reason}. Send the same records again: duplicates are recognised by their id.",
        headers={"Retry-After": "1"},
    )


def _sender(request: Request, caller: Caller) -> Sender:
    source = request.headers.get("ce-source", _DEFAULT_SOURCE)
    if not 0 < len(source) <= LONGEST_SOURCE or not source.isprintable():
        raise Problem(400, "Bad request", f"ce-source is printable text of 1 to {LONGEST_SOURCE} characters.")
    headers: list[tuple[str, bytes]] = []
    telemetry.inject(headers)
    return Sender(source, caller.has("replay"), headers)


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    accepted = sum(result["status"] == "accepted" for result in results)
    return {"accepted": accepted, "refused": len(results) - accepted, "results": results}


def _answer(pipeline: str, results: Sequence[dict[str, Any]]) -> Response:
    body = _summary(results)
    HTTP_RECORDS.labels(pipeline, "accepted").inc(body["accepted"])
    HTTP_RECORDS.labels(pipeline, "refused").inc(body["refused"])
    if body["accepted"]:
        return json_response(body, 202)
    one_is_no_json = len(results) == 1 and results[0]["reason"] in _BAD_SYNTAX
    first = results[0]["violations"][0]
    raise Problem(
        400 if one_is_no_json else 422,
        "Malformed JSON" if one_is_no_json else "Every record was refused",
        f"{first['field'] or 'The record'}: {first['value']} ({first['rule']}); {first['mend']}.",
        **body,
    )
