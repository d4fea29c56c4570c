"""What a request's body is, as its headers say."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from everloop_kernel.http import Problem

from everloop_ingest.entrypoints.decompress import Coding

__all__ = ["ACCEPTED", "Media", "media_of"]

Form = Literal["json", "lines", "event", "events"]

_FORMS: Final[Mapping[str, Form]] = {
    "": "json",
    "application/json": "json",
    "application/x-ndjson": "lines",
    "application/ndjson": "lines",
    "application/jsonl": "lines",
    "application/cloudevents+json": "event",
    "application/cloudevents-batch+json": "events",
}
_CODINGS: Final[Mapping[str, Coding]] = {
    "": "identity",
    "identity": "identity",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zstd": "zstd",
}
ACCEPTED: Final = (
    "application/json, application/x-ndjson, application/cloudevents+json, application/cloudevents-batch+json"
)
_ACCEPTED_CODINGS: Final = "gzip, zstd"


@dataclass(frozen=True, slots=True)
class Media:
    """A body's form and its compression.

    `json` is one object or an array, `lines` NDJSON, `event` one structured CloudEvent, `events` a batch.
    """

    form: Form
    coding: Coding


@lru_cache(maxsize=256)
def media_of(content_type: bytes, content_encoding: bytes) -> Media:
    """What these two headers say; raises `Problem` 415."""
    kind, _, parameters = content_type.decode("latin-1").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    form = _FORMS.get(kind.strip())
    if form is None or charset not in {"", "charset=utf-8"}:
        detail = f"Send {ACCEPTED}, in UTF-8."
        raise Problem(415, "Unsupported media type", detail, headers={"Accept-Post": ACCEPTED})
    coding = _CODINGS.get(content_encoding.decode("latin-1").strip().lower())
    if coding is None:
        detail = f"Send the body plain, or with a Content-Encoding of {_ACCEPTED_CODINGS}."
        headers = {"Accept-Encoding": _ACCEPTED_CODINGS}
        raise Problem(415, "Unsupported media type", detail, headers=headers)
    return Media(form, coding)
