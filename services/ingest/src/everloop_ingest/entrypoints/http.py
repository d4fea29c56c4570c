"""The HTTP edge: `POST /v1/pipelines/{pipeline}/observations`, `/labels` and `/retractions`.

The first two also with `/check`; `DELETE …/observations/{id}` retracts one.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from everloop_kernel.http import Problem
from everloop_kernel.http_body import BodyError
from everloop_kernel.http_message import Response, json_response, problem_response
from everloop_kernel.http_routes import Call, Route

from everloop_ingest.application.results import Results
from everloop_ingest.application.submitting import (
    InboundRecord,
    Interrupted,
    Overloaded,
    Publish,
    Submission,
    Unavailable,
    submit,
    submit_block,
)
from everloop_ingest.domain.contract import Contract, Kind, Refused
from everloop_ingest.entrypoints.body import (
    BLOCK_ROWS,
    Budget,
    blocks_of,
    blocks_of_lines,
    no_records,
    read_whole,
    rows_of,
    too_large,
)
from everloop_ingest.entrypoints.decompress import decompressed
from everloop_ingest.entrypoints.idempotency import Fingerprint, Remembered, key_of
from everloop_ingest.entrypoints.media import Media, media_of
from everloop_ingest.entrypoints.openapi import DOCUMENT
from everloop_ingest.entrypoints.retracting import retraction_of
from everloop_ingest.entrypoints.sender import sender_of
from everloop_ingest.metrics import HTTP_RECORDS

__all__ = ["Edge"]

_STREAM_BYTES: Final = 2 << 20
"""What a streamed body holds: the connection's buffer, a line, and four blocks that wait for the broker."""
_BAD_SYNTAX: Final = frozenset({"malformed-json", "invalid-utf8", "not-an-object", "too-deep"})
_RETRACTION_MEDIA: Final = Media("json", "identity")
_AGAIN: Final = "Send the same records again: duplicates are recognised by their id."
_IDENTITY: Final = (b"content-type", b"content-encoding", b"ce-source", b"ce-type", b"ce-id")
"""Headers that make a request another one."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Edge:
    """The routes, and what they need."""

    get: Callable[[str], Contract | None]
    """The contract of a pipeline."""
    knows_all: Callable[[], bool]
    """Whether the list of pipelines is complete, so that an unknown one does not exist."""
    publish: Publish
    max_body_bytes: int
    budget: Budget
    remembered: Remembered

    def routes(self) -> list[Route]:
        """For the service's router."""

        async def observations(call: Call) -> Response:
            return await self._receive(call, "observation")

        async def labels(call: Call) -> Response:
            return await self._receive(call, "label")

        async def check_observations(call: Call) -> Response:
            return await self._check(call, "observation")

        async def check_labels(call: Call) -> Response:
            return await self._check(call, "label")

        async def retractions(call: Call) -> Response:
            return await self._receive(call, "retraction")

        base = "/v1/pipelines/{pipeline}"
        return [
            Route(f"{base}/observations", {b"POST": observations}, streams=True),
            Route(f"{base}/observations/check", {b"POST": check_observations}, streams=True),
            Route(f"{base}/labels", {b"POST": labels}, streams=True),
            Route(f"{base}/labels/check", {b"POST": check_labels}, streams=True),
            Route(f"{base}/retractions", {b"POST": retractions}, streams=True),
            Route(f"{base}/observations/{{observation}}", {b"DELETE": self._retract}),
            Route("/openapi.json", {b"GET": lambda _: json_response(DOCUMENT)}),
        ]

    async def _receive(self, call: Call, kind: Kind) -> Response:
        """Check, publish, answer: 202 only after the broker has acknowledged."""
        request, pieces = self._request(call, kind, self.publish)
        key = key_of(call.header(b"idempotency-key"))
        if isinstance(request, Results):
            return _answer(call.parameters["pipeline"], request)
        if key is None:
            return await self._answered(request, pieces)
        return await self._answered_once(request, call, key)

    async def _check(self, call: Call, kind: Kind) -> Response:
        """Say what would become of the rows, and publish nothing."""
        request, pieces = self._request(call, kind, _publish_nothing)
        results = request if isinstance(request, Results) else await self._take(request, pieces)
        return json_response(results.members())

    def _request(
        self, call: Call, kind: Kind, publish: Publish
    ) -> "tuple[_Request | Results, AsyncIterator[bytes]]":
        """What the head asks for, or its refusal as the result of one row; and the body's pieces."""
        caller, headers, pieces = call.require("producer"), call.request.headers, call.request.stream
        assert pieces is not None
        contract = self._contract(call.parameters["pipeline"])
        media = media_of(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
        sender = sender_of(call, caller, media, kind)
        if isinstance(sender, Refused):
            results = Results()
            results.refuse(sender)
            return results, pieces
        return _Request(Submission(contract, kind, sender), media, _announced(call), publish), pieces

    async def _retract(self, call: Call) -> Response:
        """Publish a retraction; the partition key's fields stand in the query."""
        caller = call.require("producer")
        contract = self._contract(call.parameters["pipeline"])
        sender = sender_of(call, caller, _RETRACTION_MEDIA, "retraction")
        if isinstance(sender, Refused):
            results = Results()
            results.refuse(sender)
            return _answer(contract.pipeline, results)
        row = retraction_of(contract, call, sender, _now())
        try:
            submission = Submission(contract, "retraction", sender)
            results = await submit_block(submission, [row], clock=_now, publish=self.publish)
        except Interrupted as interrupted:
            raise _problem(interrupted) from interrupted
        return _answer(contract.pipeline, results)

    async def _answered_once(self, request: "_Request", call: Call, key: str) -> Response:
        """As `_answered`, but the same key with the same request is answered as before."""
        stream = call.request.stream
        assert stream is not None
        name = (call.caller.name, f"{request.submission.topic}/{request.submission.kind}", key)
        fingerprint = Fingerprint(*[call.request.headers.get(header, b"") for header in _IDENTITY])
        before = self.remembered.begin(name)
        pieces = fingerprint.over(stream)
        if before is not None:
            async for _ in pieces:
                pass
            return before.to(fingerprint.digest())
        response = None
        try:
            response = await self._answered(request, pieces)
        finally:
            self.remembered.end(name, fingerprint.digest(), response)
        return response

    async def _answered(self, request: "_Request", pieces: AsyncIterator[bytes]) -> Response:
        return _answer(request.submission.contract.pipeline, await self._take(request, pieces))

    async def _take(self, request: "_Request", pieces: AsyncIterator[bytes]) -> Results:
        media = request.media
        plain = pieces if media.coding == "identity" else decompressed(pieces, media.coding)
        try:
            if media.form != "lines":
                return await self._take_whole(request, plain)
            with self.budget.share(_STREAM_BYTES):
                return await _submit(request, blocks_of_lines(plain))
        except Interrupted as interrupted:
            raise _problem(interrupted) from interrupted

    async def _take_whole(self, request: "_Request", pieces: AsyncIterator[bytes]) -> Results:
        if request.announced_bytes > self.max_body_bytes:
            raise too_large(self.max_body_bytes)
        with self.budget.share(request.announced_bytes) as share:
            body = await read_whole(pieces, self.max_body_bytes, share)
            rows = [body] if request.media.form == "event" and body else rows_of(body)
            del body
            if len(rows) <= BLOCK_ROWS:
                return await submit_block(request.submission, rows, clock=_now, publish=request.publish)
            return await _submit(request, _each(rows))

    def _contract(self, pipeline: str) -> Contract:
        contract = self.get(pipeline)
        if contract is None and not self.knows_all():
            raise _unavailable("The list of pipelines is not read yet.")
        if contract is None:
            raise Problem(
                404,
                "Unknown pipeline",
                f"There is no pipeline {pipeline!r}; apply its file with `everloop apply`.",
            )
        return contract


@dataclass(frozen=True, slots=True)
class _Request:
    """What a request's head says."""

    submission: Submission
    media: Media
    announced_bytes: int
    publish: Publish


async def _submit(request: _Request, blocks: AsyncIterator[Sequence[bytes]]) -> Results:
    return await submit(request.submission, blocks, clock=_now, publish=request.publish)


async def _publish_nothing(topic: str, records: Sequence[InboundRecord]) -> None:
    """Whoever asks wants to know what would be refused."""


def _announced(call: Call) -> int:
    """The body's length as announced, else 0; the parser has refused what is no number."""
    return int(call.request.headers.get(b"content-length", b"0"))


async def _each(rows: Sequence[bytes]) -> AsyncIterator[Sequence[bytes]]:
    for block in blocks_of(rows):
        yield block


def _unavailable(reason: str, results: Results | None = None) -> Problem:
    extra = {} if results is None else results.members()
    return Problem(503, "Not available", f"{reason} {_AGAIN}", headers={"Retry-After": "1"}, **extra)


def _problem(interrupted: Interrupted) -> Exception:
    """Why the rest of the rows was not taken, with what is known of those before."""
    cause, results = interrupted.cause, interrupted.results
    match cause:
        case Unavailable():
            return _unavailable(f"{cause}.", results)
        case Overloaded():
            detail = f"Ingest is busy: {cause}. {_AGAIN}"
            return Problem(
                429, "Too many requests", detail, headers={"Retry-After": "1"}, **results.members()
            )
        case Problem():
            return Problem(
                cause.status, cause.title, cause.detail, headers=cause.headers, **results.members()
            )
        case BodyError():
            detail = f"{cause}, after {results.rows} rows. {_AGAIN}"
            return Problem(cause.status, "Incomplete body", detail, **results.members())
    return cause


def _answer(pipeline: str, results: Results) -> Response:
    if results.accepted:
        HTTP_RECORDS.labels(pipeline, "accepted").inc(results.accepted)
    if results.refused:
        HTTP_RECORDS.labels(pipeline, "refused").inc(results.refused)
    if results.accepted:
        return json_response(results.members(), 202)
    if results.first is None:
        raise no_records()
    return _all_refused(results, results.first)


def _all_refused(results: Results, first: Mapping[str, Any]) -> Response:
    """The status and the words are those of the first refusal."""
    one_is_no_json = results.rows == 1 and first["reason"] in _BAD_SYNTAX
    field, value, rule, mend = (first["violations"][0][name] for name in ("field", "value", "rule", "mend"))
    return problem_response(
        400 if one_is_no_json else 422,
        f"{': '.join(filter(None, (field or 'The record', value)))} ({rule}); {mend}.",
        title="Malformed JSON" if one_is_no_json else "Every record was refused",
        **results.members(),
    )
