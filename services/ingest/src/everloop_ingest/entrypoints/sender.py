"""Who sends a request's rows, from its headers: CloudEvents attributes, the trace, the token."""

from typing import Final
from urllib.parse import unquote_to_bytes

from everloop_kernel import telemetry
from everloop_kernel.auth import Caller
from everloop_kernel.http import Problem
from everloop_kernel.http_routes import Call
from everloop_schemas.cloudevents import Rejected, envelope

from everloop_ingest.application.submitting import Sender, wrong_attribute
from everloop_ingest.domain.contract import Kind, Refused
from everloop_ingest.entrypoints.media import Media

__all__ = ["sender_of"]

_DEFAULT_SOURCE: Final = "http"
_BINARY: Final = (b"ce-specversion", b"ce-id", b"ce-type")
"""Any of them makes the request one CloudEvent in binary mode; `ce-source` alone names the source of rows."""


def sender_of(call: Call, caller: Caller, media: Media, kind: Kind) -> Sender | Refused:
    """The sender, or why its event does not belong here; raises `Problem` 400 and 415."""
    headers = call.request.headers
    trace: list[tuple[str, bytes]] = []
    telemetry.inject(trace)
    may_replay = caller.has("replay")
    if media.form in ("event", "events"):
        return Sender(_DEFAULT_SOURCE, may_replay, trace, structured=True)
    if any(name in headers for name in _BINARY):
        return _binary(call, media, kind, Sender(_DEFAULT_SOURCE, may_replay, trace))
    source = _DEFAULT_SOURCE
    if b"ce-source" in headers:
        source = unquote_to_bytes(headers[b"ce-source"]).decode("utf-8", "replace")
        wrong = wrong_attribute(source, f"io.everloop.{kind}", kind)
        if wrong is not None:
            raise Problem(400, "Bad request", f"ce-source: {wrong.violations[0].mend}.")
    return Sender(source, may_replay, trace)


def _binary(call: Call, media: Media, kind: Kind, sender: Sender) -> Sender | Refused:
    """One event, its attributes in headers, percent-encoded where they are not ASCII."""
    if media.form != "json":
        detail = "A CloudEvent in binary mode is one JSON object: send application/json."
        raise Problem(415, "Unsupported media type", detail)
    attributes = [
        (name.decode("latin-1").replace("ce-", "ce_", 1), unquote_to_bytes(value))
        for name, value in call.request.headers.items()
        if name.startswith(b"ce-")
    ]
    found = envelope(attributes, b"{}")
    if isinstance(found, Rejected):
        raise Problem(400, "Bad request", f"{found.reason.replace('ce_', 'ce-')}: {_MEND}.")
    source = found.source or ""
    own = sender.headers
    if found.traceparent is not None and not own:
        own = [("traceparent", found.traceparent.encode())]
    return wrong_attribute(source, found.type or "", kind) or Sender(source, sender.may_replay, own)


_MEND: Final = "set ce-specversion to 1.0, and ce-id, ce-source and ce-type"
