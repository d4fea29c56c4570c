"""The API's description, OpenAPI 3.1; its schemas are generated from the models below."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, Literal

from everloop_schemas.events import Violation
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from everloop_ingest.application.results import MOST_BYTES, MOST_RESULTS
from everloop_ingest.entrypoints.media import ACCEPTED

__all__ = ["DOCUMENT"]

Json = dict[str, Any]


class RowAccepted(BaseModel):
    """A row that was published."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["accepted"]
    id: str
    warnings: list[Violation] | None = Field(None, description="rules that it breaks and that only warn")
    quarantine: list[Violation] | None = Field(
        None, description="rules for which it will stand in the quarantine, not in the log"
    )


class RowRefused(BaseModel):
    """A row that was refused, and why."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["refused"]
    id: str | None = Field(description="the row's id, where it has one")
    row: int = Field(ge=0, description="the row's place in the request, from 0")
    reason: str = Field(description="the code of the first rule that it breaks")
    violations: list[Violation]


class Outcome(BaseModel):
    """What became of the rows."""

    model_config = ConfigDict(extra="forbid")

    accepted: int = Field(ge=0)
    refused: int = Field(ge=0)
    results: list[RowAccepted | RowRefused] = Field(
        description=f"in the order of the rows: each of the first {MOST_RESULTS}, then those refused, "
        f"as far as {MOST_BYTES >> 20} MiB hold them"
    )
    results_left_out: int | None = Field(None, description="how many rows are not listed; absent when none")


class ProblemDetails(BaseModel):
    """RFC 9457; with the members of an outcome where rows were looked at."""

    type: str
    title: str
    status: int
    detail: str
    accepted: int | None = None
    refused: int | None = None
    results: list[RowAccepted | RowRefused] | None = None
    results_left_out: int | None = None


_PROBLEMS: Final[Mapping[int, str]] = {
    400: "the request, or its one record, cannot be read",
    401: "no token, or an unknown one",
    403: "the token lacks the role producer, or does not cover the pipeline",
    404: "no such pipeline",
    405: "another method is answered here; see Allow",
    408: "the request took too long to arrive",
    409: "a request with this Idempotency-Key is not answered yet",
    413: "the body is too large to be read at once; NDJSON has no limit",
    414: "the target is too long",
    415: "a media type or content encoding that is not read",
    422: "every record was refused, or the Idempotency-Key came with another request before",
    429: "more is under way than fits; see Retry-After",
    431: "the headers are too large",
    500: "a defect of the service; its log says more",
    503: "the broker does not acknowledge, or the pipelines are not known yet; see Retry-After",
}
_KINDS: Final = {"observations": "observation", "labels": "label", "retractions": "retraction"}
_WAIT: Final = frozenset({409, 429, 503})
_REFERENCE: Final = "#/components/schemas/{model}"


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _schemas() -> Json:
    models = [(model, "serialization") for model in (Outcome, ProblemDetails)]
    _, found = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]  # literals
    return {
        **found["$defs"],
        "Record": {
            "type": "object",
            "description": "A record as the pipeline file declares it",
            "required": ["id"],
            "properties": {"id": {"type": "string", "minLength": 1, "maxLength": 200}},
        },
        "CloudEvent": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "minLength": 1},
                "source": {"type": "string", "minLength": 1, "maxLength": 200},
                "type": {"enum": [f"io.everloop.{kind}" for kind in _KINDS.values()]},
                "data": {"$ref": "#/components/schemas/Record"},
            },
        },
    }


def _problems() -> Json:
    content = {"application/problem+json": {"schema": _ref(ProblemDetails)}}
    wait = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds"}}
    return {
        str(status): {
            "description": meaning,
            "content": content,
            **({"headers": wait} if status in _WAIT else {}),
        }
        for status, meaning in _PROBLEMS.items()
    }


def _body() -> Json:
    record, event = {"$ref": "#/components/schemas/Record"}, {"$ref": "#/components/schemas/CloudEvent"}
    rows = {"oneOf": [record, {"type": "array", "minItems": 1, "items": record}]}
    schemas = {
        "application/json": rows,
        "application/x-ndjson": {"type": "string", "description": "one record a line, without end"},
        "application/cloudevents+json": event,
        "application/cloudevents-batch+json": {"type": "array", "minItems": 1, "items": event},
    }
    assert set(ACCEPTED.split(", ")) == set(schemas)
    return {"required": True, "content": {name: {"schema": schema} for name, schema in schemas.items()}}


def _header(name: str, description: str, **schema: object) -> Json:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string", **schema},
    }


_HEADERS: Final = [
    _header("Content-Encoding", "how the body is compressed", enum=["identity", "gzip", "zstd"]),
    _header(
        "Idempotency-Key", "the same key with the same body is answered as the first time", maxLength=202
    ),
    _header("ce-source", "the source of rows that do not name their own; `http` when absent", maxLength=200),
    _header("traceparent", "W3C trace context"),
]


def _post(kind: str, plural: str) -> Json:
    accepted = {
        "description": "the accepted rows are stored: the broker has acknowledged them",
        "content": {"application/json": {"schema": _ref(Outcome)}},
    }
    return {
        "operationId": f"publish_{plural}",
        "summary": f"Publish {plural}",
        "description": f"One {kind}, an array, NDJSON of any length, or CloudEvents in every mode.",
        "parameters": _HEADERS,
        "requestBody": _body(),
        "responses": {"202": accepted, **_problems()},
        "security": [{}, {"token": []}],
    }


def _check(kind: str, plural: str) -> Json:
    told = {
        "description": "what would become of each row; nothing is published",
        "content": {"application/json": {"schema": _ref(Outcome)}},
    }
    return {
        **_post(kind, plural),
        "operationId": f"check_{plural}",
        "summary": f"Check {plural} without publishing them",
        "responses": {"200": told, **_problems()},
    }


def _delete() -> Json:
    accepted = {
        "description": "the retraction is stored: the broker has acknowledged it",
        "content": {"application/json": {"schema": _ref(Outcome)}},
    }
    key = {
        "name": "key",
        "in": "query",
        "style": "form",
        "explode": True,
        "description": "the partition key's fields, such as ?origin=EWR, and the reason",
        "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    }
    return {
        "operationId": "retract_observation",
        "summary": "Retract an observation",
        "parameters": [key],
        "responses": {"202": accepted, **_problems()},
        "security": [{}, {"token": []}],
    }


def _get(summary: str, media: str = "application/json") -> Json:
    answers = {status: {"description": summary, "content": {media: {}}} for status in ("200", "503")}
    return {"get": {"summary": summary, "responses": answers}}


_PIPELINE: Final = {
    "name": "pipeline",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
}


def _document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Everloop ingest",
            "version": version("everloop-ingest"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            **{
                f"/v1/pipelines/{{pipeline}}/{plural}": {
                    "parameters": [_PIPELINE],
                    "post": _post(kind, plural),
                }
                for plural, kind in _KINDS.items()
            },
            **{
                f"/v1/pipelines/{{pipeline}}/{plural}/check": {
                    "parameters": [_PIPELINE],
                    "post": _check(kind, plural),
                }
                for plural, kind in _KINDS.items()
                if kind != "retraction"
            },
            "/v1/pipelines/{pipeline}/observations/{observation}": {
                "parameters": [_PIPELINE, {**_PIPELINE, "name": "observation"}],
                "delete": _delete(),
            },
            "/health/live": _get("Whether the process answers"),
            "/health/ready": _get("Whether every component is ready"),
            "/metrics": _get("Prometheus metrics", "text/plain"),
            "/openapi.json": _get("This description"),
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


DOCUMENT: Final[Json] = _document()
"""Served at /openapi.json."""
