"""CloudEvents 1.0 on Kafka: binary mode is written, binary and structured are read.

Reading is total: any bytes and any headers give an event or a `Rejected`, never an exception.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, NoReturn, TypeVar

import msgspec
from pydantic import ValidationError

from everloop_schemas.events import ArtifactChunk, Event
from everloop_schemas.rejected import Rejected
from everloop_schemas.strict_json import MAX_BYTES, MAX_DEPTH, strict_json

__all__ = ["Envelope", "Headers", "Rejected", "decode", "encode", "envelope", "strict_json"]

Headers = Iterable[tuple[str, bytes | None]]
"""Kafka headers as aiokafka gives them: a value may be null, a name may come twice."""
E = TypeVar("E", bound=Event)

_MAX_ATTRIBUTE = 1024
_CHUNK_HEADERS = ("sha256", "index", "count")
_TRACEPARENT = re.compile(r"(?a:[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})")
_NO_VALUE = Rejected("no-value", "the record has no value", "send a JSON object as the value")
_SPEC_MEND = "set ce_specversion=1.0, ce_id, ce_source and ce_type, as UTF-8 text"


class Envelope(NamedTuple):
    """What stands around the data.

    `id`, `source` and `type` are all text, or all None where plain JSON came without CloudEvents attributes.
    `data` is the JSON text, not yet checked.
    """

    id: str | None
    source: str | None
    type: str | None
    time: datetime | None
    traceparent: str | None
    data: bytes


def encode(
    event: Event,
    *,
    id: str,  # noqa: A002 (the attribute's name in CloudEvents)
    source: str,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Write `event` in binary mode: the Kafka value and its headers. `id` is unique within `source`."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event.type_name().encode()),
    ]
    if time is not None:
        headers.append(("ce_time", time.isoformat().replace("+00:00", "Z").encode()))
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    if isinstance(event, ArtifactChunk):
        headers.append(("content-type", b"application/octet-stream"))
        headers += [(f"everloop-{name}", str(getattr(event, name)).encode()) for name in _CHUNK_HEADERS]
        return event.data, headers
    headers.append(("content-type", b"application/json"))
    return event.model_dump_json().encode(), headers


def envelope(headers: Headers | None, value: bytes | None) -> Envelope | Rejected:
    """Read the CloudEvents attributes of a record, whichever mode it is in; the data is not looked into.

    Codes of refusal: `no-value`, `invalid-header`, `duplicate-header`, `cloudevent`, `invalid-time`,
    and those of `strict_json` for a structured event.
    """
    if value is None:
        return _NO_VALUE
    named: dict[str, bytes | None] = {}
    for name, content in headers or ():
        if name in named and name.startswith("ce_"):
            return Rejected("duplicate-header", f"the header {name[:40]!r} comes twice", "send it once")
        named[name] = content
    if (named.get("content-type") or b"").lower().startswith(b"application/cloudevents"):
        return _structured(value, named)
    if "ce_specversion" in named or "ce_id" in named:
        return _binary(value, named)
    return Envelope(None, None, None, None, _traceparent(named.get("traceparent")), value)


def decode(model: type[E], value: bytes | None, headers: Headers | None) -> E | Rejected:
    """Read one of our own events; fields that a newer producer added are ignored.

    Codes of refusal: those of `envelope`, `wrong-type`, `schema`.
    """
    found = envelope(headers, value)
    if isinstance(found, Rejected):
        return found
    if found.type != model.type_name():
        reason = f"the event's type is {str(found.type)[:100]}, not {model.type_name()}"
        return Rejected("wrong-type", reason, "publish to the topic of the event's own type")
    try:
        if model is ArtifactChunk:
            return model.model_validate(_chunk_fields(found.data, headers or ()))
        _refuse_non_numbers(found.data)
        return model.model_validate_json(found.data)
    except ValidationError as error:
        return Rejected("schema", _summary(error), "publish what the topic's JSON Schema describes")
    except (ValueError, RecursionError) as error:
        return Rejected("schema", str(error)[:200], "publish what the topic's JSON Schema describes")


def _binary(value: bytes, headers: Mapping[str, bytes | None]) -> Envelope | Rejected:
    try:
        if headers.get("ce_specversion") != b"1.0":
            return Rejected("cloudevent", "ce_specversion is not 1.0", _SPEC_MEND)
        id_, source, kind = (_text(headers, name) for name in ("ce_id", "ce_source", "ce_type"))
        time = headers.get("ce_time")
        at = None if time is None else _time(time.decode())
    except UnicodeDecodeError:
        return Rejected("invalid-header", "a CloudEvents header is not UTF-8", _SPEC_MEND)
    except _AttributeRefusedError as refused:
        return refused.rejected
    trace = headers.get("traceparent") or headers.get("ce_traceparent")
    return Envelope(id_, source, kind, at, _traceparent(trace), value)


class _AttributeRefusedError(Exception):
    def __init__(self, code: str, reason: str, mend: str = _SPEC_MEND) -> None:
        super().__init__(reason)
        self.rejected = Rejected(code, reason, mend)


def _text(headers: Mapping[str, bytes | None], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise _AttributeRefusedError("cloudevent", f"the header {name} is missing or empty")
    if len(value) > _MAX_ATTRIBUTE:
        raise _AttributeRefusedError("cloudevent", f"the header {name} is longer than {_MAX_ATTRIBUTE} bytes")
    return value.decode()


def _time(text: str) -> datetime:
    mend = "write RFC 3339, such as 2013-01-01T05:15:00Z"
    try:
        at = datetime.fromisoformat(text)
        at.utcoffset()
    except (ValueError, OverflowError):
        raise _AttributeRefusedError("invalid-time", f"the time {text[:60]!r} cannot be read", mend) from None
    if at.tzinfo is None:
        raise _AttributeRefusedError("invalid-time", f"the time {text[:60]!r} has no time zone", mend)
    return at


def _traceparent(value: bytes | None) -> str | None:
    # a broken trace context is ignored, as W3C asks: it must never cost an event
    text = (value or b"").decode("ascii", "replace")
    return text if _TRACEPARENT.fullmatch(text) else None


def _structured(value: bytes, headers: Mapping[str, bytes | None]) -> Envelope | Rejected:
    event = strict_json(value, MAX_DEPTH + 1, 2 * MAX_BYTES)
    if isinstance(event, Rejected):
        return event
    try:
        if event.get("specversion") != "1.0":
            return Rejected("cloudevent", "specversion is not 1.0", _SPEC_MEND)
        id_, source, kind = (_attribute(event, name) for name in ("id", "source", "type"))
        at = _time(_attribute(event, "time")) if "time" in event else None
        data = _structured_data(event)
    except _AttributeRefusedError as refused:
        return refused.rejected
    trace = event.get("traceparent")
    context = trace.encode("ascii", "replace") if isinstance(trace, str) else headers.get("traceparent")
    return Envelope(id_, source, kind, at, _traceparent(context), data)


def _attribute(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not value or len(value) > _MAX_ATTRIBUTE:
        raise _AttributeRefusedError("cloudevent", f"{name} is not text of 1 to {_MAX_ATTRIBUTE} characters")
    return value


def _structured_data(event: Mapping[str, Any]) -> bytes:
    if "data_base64" in event:
        try:
            return base64.b64decode(event["data_base64"], validate=True)
        except (TypeError, ValueError):
            mend = "encode the bytes as RFC 4648 says"
            raise _AttributeRefusedError("cloudevent", "data_base64 is not base64", mend) from None
    if "data" not in event:
        raise _AttributeRefusedError("no-value", "the event has no data", "send a JSON object as data")
    return msgspec.json.encode(event["data"])


def _chunk_fields(data: bytes, headers: Headers) -> dict[str, Any]:
    named = {name: value.decode() for name, value in headers if value and name.startswith("everloop-")}
    fields: dict[str, Any] = {name: named.get(f"everloop-{name}") for name in _CHUNK_HEADERS}
    return {**fields, "data": data}


def _refuse_non_numbers(data: bytes) -> None:
    # pydantic reads NaN and Infinity; JSON has neither, and no consumer expects them
    if b"NaN" in data or b"Infinity" in data:
        json.loads(data, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _summary(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_input=False)[:3]
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found)[:500]
