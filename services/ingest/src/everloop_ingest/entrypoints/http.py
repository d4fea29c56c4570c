"""The HTTP edge: `POST /v1/pipelines/{pipeline}/observations` and `/labels`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from everloop_kernel.auth import Caller
from everloop_kernel.http import Problem
from everloop_kernel.http_body import BodyError
from everloop_kernel.http_message import Response, json_response, problem_response
from everloop_kernel.http_routes import Call, Route

from everloop_ingest.application.results import Results
from everloop_ingest.application.submitting import (
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
from everloop_ingest.entrypoints.sender import sender_of
from everloop_ingest.metrics import HTTP_RECORDS

__all__ = ["Edge"]

_STREAM_BYTES: Final = 2 << 20
"""What a streamed body holds: the connection's buffer, a line, and four blocks that wait for the broker."""
_BAD_SYNTAX: Final = frozenset({"malformed-json", "invalid-utf8", "not-an-object", "too-deep"})
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

        base = "/v1/pipelines/{pipeline}"
        return [
            Route(f"{base}/observations", {b"POST": observations}, streams=True),
            Route(f"{base}/labels", {b"POST": labels}, streams=True),
            Route("/openapi.json", {b"GET": lambda _: json_response(DOCUMENT)}),
        ]

    async def _receive(self, call: Call, kind: Kind) -> Response:
        """Check, publish, answer: 202 only after the broker has acknowledged."""
        caller, headers = call.require("producer"), call.request.headers
        contract = self._contract(call.parameters["pipeline"])
        media = media_of(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
        key = key_of(call.header(b"idempotency-key"))
        sender = sender_of(call, caller, media, kind)
        assert call.request.stream is not None
        if isinstance(sender, Refused):
            results = Results()
            results.refuse(sender)
            return _answer(contract.pipeline, results)
        request = _Request(Submission(contract, kind, sender), media, _announced(call))
        if key is None:
            return await self._take(request, call.request.stream)
        return await self._take_once(request, call, caller, key)

    async def _take_once(self, request: "_Request", call: Call, caller: Caller, key: str) -> Response:
        """As `_take`, but the same key with the same request is answered as before."""
        stream = call.request.stream
        assert stream is not None
        name = (caller.name, f"{request.submission.topic}/{request.submission.kind}", key)
        fingerprint = Fingerprint(*[call.request.headers.get(header, b"") for header in _IDENTITY])
        before = self.remembered.begin(name)
        pieces = fingerprint.over(stream)
        if before is not None:
            async for _ in pieces:
                pass
            return before.to(fingerprint.digest())
        response = None
        try:
            response = await self._take(request, pieces)
        finally:
            self.remembered.end(name, fingerprint.digest(), response)
        return response

    async def _take(self, request: "_Request", pieces: AsyncIterator[bytes]) -> Response:
        media = request.media
        plain = pieces if media.coding == "identity" else decompressed(pieces, media.coding)
        try:
            if media.form == "lines":
                with self.budget.share(_STREAM_BYTES):
                    results = await self._submit(request, blocks_of_lines(plain))
            else:
                results = await self._take_whole(request, plain)
        except Interrupted as interrupted:
            raise _problem(interrupted) from interrupted
        return _answer(request.submission.contract.pipeline, results)

    async def _take_whole(self, request: "_Request", pieces: AsyncIterator[bytes]) -> Results:
        if request.announced_bytes > self.max_body_bytes:
            raise too_large(self.max_body_bytes)
        with self.budget.share(request.announced_bytes) as share:
            body = await read_whole(pieces, self.max_body_bytes, share)
            rows = [body] if request.media.form == "event" and body else rows_of(body)
            del body
            if len(rows) <= BLOCK_ROWS:
                return await submit_block(request.submission, rows, clock=_now, publish=self.publish)
            return await self._submit(request, _each(rows))

    async def _submit(self, request: "_Request", blocks: AsyncIterator[Sequence[bytes]]) -> Results:
        return await submit(request.submission, blocks, clock=_now, publish=self.publish)

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
        f"{field or 'The record'}: {value} ({rule}); {mend}.",
        title="Malformed JSON" if one_is_no_json else "Every record was refused",
        **results.members(),
    )
