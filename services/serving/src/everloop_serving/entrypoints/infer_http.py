"""Inference over HTTP: the protocol's route and the plain JSON route."""

import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn
from urllib.parse import parse_qs

from everloop_kernel.http_message import Deferred, Request, Response, json_response
from everloop_schemas.rejected import Rejected
from everloop_schemas.strict_json import strict_json

from everloop_serving.application.loaded_model import LoadedModel
from everloop_serving.application.models import Choice, Models
from everloop_serving.application.online import read_online
from everloop_serving.application.predict import Answer, Predictions, trace_id
from everloop_serving.application.slices import SLICE_ROWS
from everloop_serving.application.turn import Turn
from everloop_serving.domain.inputs import Row
from everloop_serving.domain.tensors import InvalidInput
from everloop_serving.entrypoints.errors import Errors
from everloop_serving.entrypoints.oip_json import BINARY_HEADER, body_of, read_request

__all__ = ["Inference"]

_OCTETS = b"application/octet-stream"


class Inference:
    """Turns requests into rows and answers into bodies."""

    def __init__(self, models: Models, predictions: Predictions, errors: Errors) -> None:
        self._models = models
        self._predictions = predictions
        self._errors = errors
        self._turn = Turn(predictions)

    def infer(self, request: Request, model: str, version: str | None) -> "Response | Awaitable[Response]":
        """`POST /v2/models/{m}[/versions/{v}]/infer`."""
        headers = request.headers
        asked = read_request(request.body, headers.get(BINARY_HEADER))
        request_id = asked.id or uuid.uuid4().hex
        choice = self._models.choose(model, version, request_id)
        rows = choice.model.inputs.rows(asked.tensors, request_id)

        def respond(answer: Answer) -> Response:
            body, head_length = body_of(asked, answer, request_id)
            if head_length is None:
                return Response(body)
            return Response(body, content_type=_OCTETS, headers=[(BINARY_HEADER, str(head_length).encode())])

        answered = self._explained if asked.explain else self._answered
        return answered(choice, rows, headers.get(b"traceparent"), respond)

    def predict(
        self, request: Request, pipeline: str, version: str | None
    ) -> "Response | Awaitable[Response]":
        """`POST /v1/pipelines/{p}/predict[?explain=true]`: one record, or a list of records."""
        explain = _flag(request.target, "explain")
        traceparent = request.headers.get(b"traceparent")
        records, single = _records(request.body)
        given = records[0].get("id") if records else None
        request_id = given if isinstance(given, str) and given else uuid.uuid4().hex
        choice = self._models.choose(pipeline, version, request_id)
        inputs = choice.model.inputs
        if not 1 <= len(records) <= inputs.most_rows:
            raise InvalidInput(f"{len(records)} records in one request; 1 to {inputs.most_rows} are answered")
        rows = [
            inputs.row(record, request_id if single else f"{request_id}-{index}")
            for index, record in enumerate(records)
        ]

        def respond(answer: Answer) -> Response:
            found = _plain(answer) if answer.explanations is None else _in_full(answer, traceparent)
            return json_response(found[0] if single else {"predictions": found})

        answered = self._explained if explain else self._answered
        return answered(choice, rows, traceparent, respond)

    def online(
        self, request: Request, pipeline: str, version: str | None
    ) -> "Response | Awaitable[Response]":
        """`POST /v1/pipelines/{p}/online`: the features of one object with the keys, or of a list of them."""
        model = self._models.version(pipeline, version)
        records, single = _records(request.body)
        if not 1 <= len(records) <= model.inputs.most_rows:
            raise InvalidInput(
                f"{len(records)} keys in one request; 1 to {model.inputs.most_rows} are answered"
            )
        if single:
            (found,) = _read_slice(model, records)
            return json_response({**_about(model), "features": found})
        return self._read_many(model, records)

    async def _read_many(self, model: LoadedModel, records: Sequence[dict[str, Any]]) -> Response:
        """In slices, so that a large request does not hold up the small ones."""
        about, rows = _about(model), list[dict[str, Any]]()
        await self._predictions.slices.each(records, lambda part: rows.extend(_read_slice(model, part)))
        return json_response({**about, "rows": rows})

    def _answered(
        self,
        choice: Choice,
        rows: Sequence[Row],
        traceparent: bytes | None,
        respond: Callable[[Answer], Response],
    ) -> "Response | Awaitable[Response]":
        if len(rows) == 1:
            return self._with_others(choice, rows[0], traceparent, respond)
        if len(rows) <= SLICE_ROWS:
            return respond(self._predictions.answer(choice, rows, traceparent))
        return self._later(choice, rows, traceparent, respond)

    def _with_others(
        self, choice: Choice, row: Row, traceparent: bytes | None, respond: Callable[[Answer], Response]
    ) -> Deferred:
        """With the single rows of other requests that are here too."""
        deferred = Deferred()

        def done(outcome: Answer | Exception) -> None:
            try:
                response = self._errors.of(outcome) if isinstance(outcome, Exception) else respond(outcome)
            except Exception as error:  # noqa: BLE001  (`Errors` tells ours from the caller's)
                response = self._errors.of(error)
            deferred.give(response)

        self._turn.ask(choice, row, traceparent, done)
        return deferred

    async def _explained(
        self,
        choice: Choice,
        rows: Sequence[Row],
        traceparent: bytes | None,
        respond: Callable[[Answer], Response],
    ) -> Response:
        return respond(await self._predictions.explained(choice, rows, traceparent))

    async def _later(
        self,
        choice: Choice,
        rows: Sequence[Row],
        traceparent: bytes | None,
        respond: Callable[[Answer], Response],
    ) -> Response:
        return respond(await self._predictions.answer_many(choice, rows, traceparent))


def _read_slice(model: LoadedModel, records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    now_us = time.time_ns() // 1000
    return [read_online(model, record, now_us) for record in records]


def _about(model: LoadedModel) -> dict[str, Any]:
    """Whose features these are, and how old the state may be."""
    return {
        "pipeline": model.name,
        "pipeline_version": model.pipeline_version,
        "state_age_seconds": model.state.age_seconds(),
    }


def _plain(answer: Answer) -> list[dict[str, Any]]:
    model = answer.choice.model
    return [
        {"id": row_id, model.output_name: output, "model_version": model.model_version}
        for row_id, output in zip(answer.ids, answer.outputs, strict=True)
    ]


def _in_full(answer: Answer, traceparent: bytes | None) -> list[dict[str, Any]]:
    """Beside the predictions what they come from: the model's training, the state, the trace, the reasons."""
    model = answer.choice.model
    about = {
        "arm": answer.choice.arm,
        "pipeline_version": model.pipeline_version,
        "dataset": model.dataset,
        "state_age_seconds": model.state.age_seconds(),
        "trace_id": trace_id(traceparent),
    }
    return [
        {**plain, **about, "explanation": explanation}
        for plain, explanation in zip(_plain(answer), answer.explanations or (), strict=True)
    ]


def _flag(target: bytes, name: str) -> bool:
    """A query parameter that is `true` or `false`; false without one."""
    query = target.partition(b"?")[2]
    if not query:
        return False
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(name, ["false"])
    if given not in (["true"], ["false"]):
        raise InvalidInput(f"the query parameter {name!r} is true or false, once")
    return given == ["true"]


def _records(body: bytes) -> tuple[list[dict[str, Any]], bool]:
    """The records of a body, and whether it is one object."""
    if body.lstrip()[:1] != b"[":
        record = strict_json(body)
        if isinstance(record, Rejected):
            raise InvalidInput(f"{record.reason}; {record.mend}")
        return [record], True
    try:
        records = json.loads(body, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is no JSON list of records: {error}") from None
    if not all(isinstance(record, dict) for record in records):
        raise InvalidInput("the body is no list of JSON objects")
    return records, False


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
