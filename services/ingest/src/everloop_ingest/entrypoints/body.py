"""Reading a request's body: bounded in size and, over all requests, in memory; split into rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
from everloop_kernel.http import Problem
from starlette.requests import Request

__all__ = ["Budget", "read_body", "rows_of"]

_JSON: Final = frozenset({"application/json", ""})
_NDJSON: Final = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl"})
_ACCEPTED: Final = "application/json, application/x-ndjson"
_RAW_ROWS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class Budget:
    """How many bytes of bodies may be in the process at once."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take `size` bytes of the budget, or answer 429."""
        if self._used + size > self._limit:
            raise Problem(
                429,
                "Too many requests",
                "Ingest is busy; send again in a second.",
                headers={"Retry-After": "1"},
            )
        self._used += size
        try:
            yield
        finally:
            self._used -= size


def expected_size(request: Request, limit: int) -> int:
    """The body's announced size, or `limit` when it is not announced; raises 400 and 413."""
    announced = request.headers.get("content-length")
    if announced is None:
        return limit
    if not announced.isdigit():
        raise Problem(400, "Bad request", "Content-Length is not a number.")
    if int(announced) > limit:
        raise _too_large(limit)
    return int(announced)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes; raises 413."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> Problem:
    return Problem(413, "Body too large", f"Send at most {limit} bytes at once, in several requests.")


def rows_of(request: Request, body: bytes) -> list[bytes]:
    """The body's rows: one object, the elements of an array, or the lines of NDJSON; raises 400 and 415.

    Rows are not looked into: each is refused or accepted by itself.
    """
    kind = _content_type(request)
    if kind in _NDJSON:
        rows = [line for line in body.splitlines() if line.strip()]
    else:
        rows = _array(body) if body.lstrip()[:1] == b"[" else [body]
    if not rows or not body.strip():
        raise Problem(400, "No records", "Send a JSON object, an array of objects, or one object a line.")
    return rows


def _content_type(request: Request) -> str:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise _unsupported("Send the body without Content-Encoding.")
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    if kind.strip() not in _JSON | _NDJSON or charset not in {"", "charset=utf-8"}:
        raise _unsupported(f"Send {_ACCEPTED}, in UTF-8.")
    return kind.strip()


def _unsupported(detail: str) -> Problem:
    return Problem(415, "Unsupported media type", detail, headers={"Accept-Post": _ACCEPTED})


def _array(body: bytes) -> list[bytes]:
    try:
        return [bytes(row) for row in _RAW_ROWS.decode(body)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Problem(400, "Malformed JSON", f"The array cannot be read: {error}.") from error
