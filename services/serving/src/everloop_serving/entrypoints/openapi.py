"""The HTTP API's description, OpenAPI 3.1; the protocol's schemas are generated from its messages."""

from importlib.metadata import version
from typing import Any, Final

import msgspec

from everloop_serving.domain.explanations import Explanation
from everloop_serving.entrypoints.oip_json import InferRequest, InferResponse
from everloop_serving.entrypoints.repository_http import RepositoryIndexRequest

__all__ = ["DOCUMENT"]

Json = dict[str, Any]
_REF: Final = "#/components/schemas/"
_ERRORS: Final = {
    400: "the request cannot be read, or an input is unknown, missing or of another type",
    401: "no token, or an unknown one",
    403: "the token may not read this pipeline, or a page of another origin asks without one",
    404: "no such model or version is deployed, or no such path",
    405: "another method is answered here; see Allow",
    408: "the request took too long to arrive",
    409: "deployments decide what is loaded",
    413: "the body is too large, or unpacks to more than is read",
    414: "the target is too long",
    415: "a content type or an encoding that is not read",
    431: "the headers are too large",
    500: "a defect; the service's log says more",
    501: "a transfer encoding that is not read",
    503: "the model is not loaded yet, or too much is asked at once; see Retry-After",
}
_COMMON: Final = (400, 401, 403, 404, 405, 408, 413, 414, 415, 431, 500, 501)
_OBJECT: Final = {"type": "object"}
_ROW: Final = {"type": "object", "description": "one record as producers send it"}


def _content(schema: Json, kind: str = "application/json") -> Json:
    return {kind: {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": _REF + name}


def _answers(ok: Json, *more: int, kind: str = "application/json") -> Json:
    errors = {
        str(status): {"description": _ERRORS[status], "content": _content(_ref("Error"))}
        for status in sorted({*_COMMON, *more})
    }
    return {"200": {"description": "the answer", "content": _content(ok, kind)}, **errors}


def _get(summary: str, ok: Json, *more: int, kind: str = "application/json") -> Json:
    return {"get": {"summary": summary, "responses": _answers(ok, *more, kind=kind)}}


def _post(summary: str, body: Json | None, ok: Json, *more: int) -> Json:
    asked = {} if body is None else {"requestBody": {"required": True, "content": _content(body)}}
    return {"post": {"summary": summary, **asked, "responses": _answers(ok, *more)}}


def _path(*names: str) -> Json:
    return {
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ]
    }


def _one_or_many(row: Json) -> Json:
    return {"anyOf": [row, {"type": "array", "items": row, "minItems": 1}]}


_EXPLAIN: Final = {
    "name": "explain",
    "in": "query",
    "schema": {"enum": ["true", "false"], "default": "false"},
    "description": "whether each prediction comes with what its features contributed",
}


def _model_paths(prefix: str, *names: str) -> Json:
    """A model's routes, for the champion or for one version."""
    place = _path(*names)
    infer = _post("Predictions for tensors", _ref("InferRequest"), _ref("InferResponse"), 503)
    return {
        prefix: {**place, **_get("Versions, inputs and outputs", _ref("ModelMetadata"), 503)},
        f"{prefix}/ready": {**place, **_get("Whether it answers", _OBJECT, 503)},
        f"{prefix}/config": {**place, **_get("Its configuration", _OBJECT, 503)},
        f"{prefix}/stats": {**place, **_get("What it answered so far", _ref("Statistics"), 503)},
        f"{prefix}/infer": {**place, **infer},
    }


def _pipeline_paths() -> Json:
    predict = _post(
        "Predictions for one record, or for several", _one_or_many(_ROW), _ref("Predictions"), 503
    )
    predict["post"]["parameters"] = [_EXPLAIN]
    online = _post("Features as they stand now", _one_or_many(_ROW), _OBJECT, 503)
    return {
        "/v1/pipelines/{pipeline}/predict": {**_path("pipeline"), **predict},
        "/v1/pipelines/{pipeline}/online": {**_path("pipeline"), **online},
    }


def _repository_paths() -> Json:
    place = _path("model")
    index = {"type": "array", "items": _ref("ModelState")}
    return {
        "/v2/repository/index": _post("The models and their states", _ref("RepositoryIndexRequest"), index),
        "/v2/repository/models/{model}/load": {**place, **_post("Granted when loaded", None, _OBJECT, 503)},
        "/v2/repository/models/{model}/unload": {
            **place,
            **_post("Refused: deployments decide", None, _OBJECT, 409, 503),
        },
    }


def _server_paths() -> Json:
    ready = _get("Whether every component is ready", _OBJECT)
    ready["get"]["responses"]["503"] = {"description": "not ready", "content": _content(_OBJECT)}
    live = _get("Whether the process answers", _OBJECT)
    return {
        "/v2": _get("The server", _OBJECT),
        "/v2/health/live": live,
        "/v2/health/ready": ready,
        "/v2/models/stats": _get("What all models answered so far", _ref("Statistics")),
        "/health/live": live,
        "/health/ready": ready,
        "/metrics": _get("Prometheus metrics", {"type": "string"}, kind="text/plain"),
        "/openapi.json": _get("This description", _OBJECT),
    }


def _schemas() -> Json:
    messages = (InferRequest, InferResponse, Explanation, RepositoryIndexRequest)
    _, generated = msgspec.json.schema_components(messages, ref_template=_REF + "{name}")
    text, number = {"type": "string"}, {"type": "number"}
    row = {
        "type": "object",
        "required": ["id", "model_version"],
        "properties": {
            "id": text,
            "probability": {**number, "minimum": 0, "maximum": 1},
            "prediction": number,
            "model_version": {"type": "integer", "minimum": 1},
            "explanation": _ref("Explanation"),
        },
    }
    many = {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": row}},
    }
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": text,
            "datatype": text,
            "shape": {"type": "array", "items": {"type": "integer"}},
        },
    }
    tensors = {"type": "array", "items": tensor}
    return {
        **generated,
        "Error": {"type": "object", "required": ["error"], "properties": {"error": text}},
        "Predictions": {"anyOf": [row, many]},
        "ModelMetadata": {
            "type": "object",
            "required": ["name", "versions", "platform", "inputs", "outputs"],
            "properties": {"name": text, "platform": text, "inputs": tensors, "outputs": tensors},
        },
        "ModelState": {
            "type": "object",
            "required": ["name", "version", "state", "reason"],
            "properties": {"name": text, "version": text, "state": {"enum": ["READY", "UNAVAILABLE"]}},
        },
        "Statistics": {"type": "object", "required": ["model_stats"]},
    }


DOCUMENT: Final[Json] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Everloop serving",
        "version": version("everloop-serving"),
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "security": [{}, {"token": []}],
    "paths": {
        **_pipeline_paths(),
        **_model_paths("/v2/models/{model}", "model"),
        **_model_paths("/v2/models/{model}/versions/{version}", "model", "version"),
        **_repository_paths(),
        **_server_paths(),
    },
    "components": {
        "schemas": _schemas(),
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}
"""Served at /openapi.json."""
