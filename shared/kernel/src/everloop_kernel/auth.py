"""Bearer tokens with roles.

The tokens file holds one JSON object a line: `{"name", "roles", "sha256", "pipelines"?}`; only the SHA-256
of a token is kept (a token is 256 random bits, so a fast hash is enough). A changed file is read again within
two seconds.

Without a tokens file a service binds to loopback only and every local caller may do everything, except a web
page of another origin. With one, every route but health and metrics needs a token, and asks for its role:

    async def approve(request: Request) -> Response:
        caller = require(request, "operator")  # else 401 or 403; checks the path's {pipeline} too
"""

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

import msgspec
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from everloop_kernel.errors import ConfigurationError
from everloop_kernel.http import Problem

__all__ = [
    "Authentication",
    "Caller",
    "Role",
    "Tokens",
    "allow",
    "check_bind",
    "create_token",
    "identify",
    "is_loopback",
    "is_open",
    "require",
]

Role = Literal["reader", "producer", "replay", "operator", "admin"]
ROLES: Final[frozenset[str]] = frozenset(get_args(Role))
_IMPLIED: Final[dict[str, frozenset[str]]] = {"admin": ROLES, "operator": frozenset({"operator", "reader"})}
_OPEN_PREFIXES: Final = ("/health/", "/v2/health/")
_OPEN_PATHS: Final = ("/metrics",)
_RELOAD_SECONDS: Final = 2.0
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="everloop"'}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `pipelines` None means every pipeline."""

    name: str
    roles: frozenset[str]
    pipelines: frozenset[str] | None = None

    def has(self, role: Role) -> bool:
        """Whether a role of this caller is `role` or implies it."""
        return any(role in _IMPLIED.get(own, (own,)) for own in self.roles)

    def sees(self, pipeline: str) -> bool:
        """Whether the caller's token covers `pipeline`."""
        return self.pipelines is None or pipeline in self.pipelines


LOCAL_CALLER: Final = Caller("local", frozenset({"admin"}))
"""Everybody on this machine, when no tokens are set up."""


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    roles: list[Role]
    sha256: str
    pipelines: list[str] | None = None


class Tokens:
    """The tokens file, or none: then only a loopback bind is allowed and every caller is local."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: list[tuple[bytes, Caller]] = [] if path is None else _read(path)
        self._stamp = self._modified()
        self._checked = time.monotonic()

    @property
    def required(self) -> bool:
        """Whether callers need a token."""
        return self._path is not None

    def authenticate(self, authorization: str | None) -> Caller | None:
        """The caller of an `Authorization` header's value (or gRPC metadata), or None: unknown or missing."""
        if self._path is None:
            return LOCAL_CALLER
        self._reload_when_changed()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for known, caller in self._known:  # no early exit: the time must not tell which token came close
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def _reload_when_changed(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._checked < _RELOAD_SECONDS:
            return
        self._checked = now
        stamp = self._modified()
        if stamp == self._stamp:
            return
        try:
            self._known = _read(self._path)
            self._stamp = stamp
        except ConfigurationError as error:
            _log.error("the changed tokens file is not used: %s", error)

    def _modified(self) -> tuple[int, int]:
        """Modification time in ns and size; zeros when the file is gone."""
        try:
            state = os.stat(self._path) if self._path else None  # noqa: PTH116  (one system call on a hot path)
        except OSError:
            state = None
        return (state.st_mtime_ns, state.st_size) if state else (0, 0)


def _read(path: Path) -> list[tuple[bytes, Caller]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the tokens file {path} cannot be read: {error}",
            "Make one with `everloop token create`, or unset EVERLOOP_TOKENS_FILE",
        ) from error
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(path: Path, number: int, line: str) -> tuple[bytes, Caller]:
    try:
        entry = msgspec.json.decode(line, type=_Line)
        digest = bytes.fromhex(entry.sha256)
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError("sha256 must have 64 hexadecimal digits")  # noqa: TRY301  (one message for both)
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigurationError(
            f"{path}, line {number}: {error}",
            "Remove the line and make a new token with `everloop token create`",
        ) from error
    pipelines = None if entry.pipelines is None else frozenset(entry.pipelines)
    return digest, Caller(entry.name, frozenset(entry.roles), pipelines)


def create_token(path: Path, name: str, roles: Sequence[str], pipelines: Sequence[str] | None = None) -> str:
    """Make a token, append its hash to the file (mode 0600) and return the token: it is shown only now.

    Raises ConfigurationError for an unknown role, no role, or a file that cannot be written.
    """
    if not roles or (unknown := set(roles) - ROLES):
        raise ConfigurationError(
            f"unknown role: {', '.join(sorted(unknown))}" if roles else "a token needs a role",
            f"Roles are {', '.join(sorted(ROLES))}",
        )
    token = f"everloop_{secrets.token_urlsafe(32)}"
    entry: dict[str, object] = {"name": name, "roles": sorted(set(roles)), "sha256": _sha256(token)}
    if pipelines:
        entry["pipelines"] = sorted(set(pipelines))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}", "Choose another file"
        ) from error
    return token


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a bind to `host` is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(host: str, tokens: Tokens, variable: str = "EVERLOOP_<SERVICE>_HTTP_HOST") -> None:
    """Refuse to listen beyond loopback without tokens; raises ConfigurationError."""
    if not tokens.required and not is_loopback(host):
        raise ConfigurationError(
            f"{variable}={host} would let anyone on the network in, since no tokens are set up",
            "Make one with `everloop token create` and set EVERLOOP_TOKENS_FILE, or bind to 127.0.0.1",
        )


class Authentication:
    """ASGI middleware: puts the `Caller` into the request, or answers 401."""

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Authenticate one request."""
        if scope["type"] == "http" and not is_open(scope["path"]):
            try:
                scope["everloop.caller"] = self._caller(Request(scope))
            except Problem as refused:
                await refused.response()(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _caller(self, request: Request) -> Caller:
        return identify(self._tokens, request.headers.get("authorization"), request.headers.get("origin"))


def identify(tokens: Tokens, authorization: str | None, origin: str | None) -> Caller:
    """The caller of a request with these two headers; raises `Problem` 401 or 403."""
    caller = tokens.authenticate(authorization)
    if caller is None:
        raise _unauthenticated()
    if not tokens.required and origin is not None and not _is_local(origin):
        raise Problem(403, "Foreign origin", f"A page of {origin} may not call this service without a token.")
    return caller


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


def is_open(path: str) -> bool:
    """Whether a path needs no token: health and metrics."""
    return path in _OPEN_PATHS or path.startswith(_OPEN_PREFIXES)


def _unauthenticated() -> Problem:
    return Problem(
        401,
        "Not authenticated",
        "Send `Authorization: Bearer <token>`; `everloop token create` makes one.",
        headers=_CHALLENGE,
    )


def require(request: Request, role: Role, pipeline: str | None = None) -> Caller:
    """The caller, if it has `role` for `pipeline` (default: the path's `{pipeline}`).

    Raises `Problem` 401 or 403.
    """
    caller: Caller | None = request.scope.get("everloop.caller")
    if caller is None:
        raise _unauthenticated()
    return allow(caller, role, pipeline or request.path_params.get("pipeline"))


def allow(caller: Caller, role: Role, pipeline: str | None) -> Caller:
    """The caller, if it has `role` for `pipeline` (None: not about one); raises `Problem` 403."""
    if not caller.has(role):
        raise Problem(403, "Not allowed", f"{caller.name} lacks the role {role}.")
    if pipeline is not None and not caller.sees(pipeline):
        raise Problem(403, "Not allowed", f"{caller.name}'s token does not cover the pipeline {pipeline}.")
    return caller
