"""Answers over HTTP: JSON, and errors as problem details (RFC 9457)."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from everloop_kernel.errors import one_line

__all__ = ["EXCEPTION_HANDLERS", "Problem", "StorableNames", "json_response", "problem", "serial"]

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()
_LARGEST_SERIAL: Final = 2**31 - 1
_MOST_DIGITS: Final = len(str(_LARGEST_SERIAL))


class Problem(Exception):  # noqa: N818  (RFC 9457's word)
    """Raise it in a route to answer with problem details.

    `status` is the HTTP status, `title` names the kind of problem, `detail` says what to do about this one.
    """

    def __init__(
        self, status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers
        self.extra = extra

    def response(self) -> Response:
        """The answer that this problem becomes."""
        answer = problem(self.status, self.title, self.detail, **self.extra)
        answer.headers.update(self.headers or {})
        return answer


def problem(status: int, title: str, detail: str, **extra: Any) -> Response:
    """A problem+json answer; `extra` adds members, such as the list of a file's problems."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **extra}
    return Response(_encoder.encode(body), status_code=status, media_type="application/problem+json")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. NaN and infinities become null: JSON has no others."""
    return Response(
        _encoder.encode(value), status_code=status, headers=dict(headers or {}), media_type="application/json"
    )


def serial(request: Request, name: str) -> int:
    """The whole number that a path names, such as a version; raises `Problem` 404 for what can be none."""
    text: str = request.path_params[name]
    plausible = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if not plausible or int(text) > _LARGEST_SERIAL:
        detail = f"{text[:40]!r} is no {name}: write a whole number up to {_LARGEST_SERIAL}."
        raise Problem(404, "Not found", detail)
    return int(text)


class StorableNames:
    """ASGI middleware: no path or query with NUL reaches Postgres, which has no such text."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 404."""
        if scope["type"] == "http" and ("\0" in scope["path"] or b"%00" in scope["query_string"]):
            answer = problem(404, "Not found", "Names hold no NUL character.")
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _problem_raised(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _http_error(_request: Request, error: Exception) -> Response:
    """Starlette's own errors: no such route, method not allowed, body too large."""
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    answer = problem(error.status_code, title, error.detail if error.detail != title else f"{title}.")
    answer.headers.update(error.headers or {})
    return answer


async def _unexpected(request: Request, error: Exception) -> Response:
    """A defect of ours: the log has the details, the caller a plain answer without our inner workings."""
    _log.error("%s %s failed: %s", request.method, request.url.path, one_line(error), exc_info=error)
    return problem(500, "Internal error", "The request could not be answered; the service's log says why.")


async def _gone(_request: Request, _error: Exception) -> Response:
    """The caller has left in the middle of the body: no defect of ours, and nobody reads the answer."""
    return problem(400, "Incomplete request", "The connection ended within the body.")


EXCEPTION_HANDLERS = {
    Problem: _problem_raised,
    HTTPException: _http_error,
    ClientDisconnect: _gone,
    Exception: _unexpected,
}
"""For Starlette's `exception_handlers`."""
