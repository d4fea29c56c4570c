"""How a quarantined record is mended before it is sent again."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpatch
from everloop_schemas.cloudevents import Envelope, envelope

from everloop.errors import EverloopError

__all__ = ["CannotPatchError", "Patch", "read_patch"]

Headers = Sequence[tuple[str, bytes | None]]


class CannotPatchError(Exception):
    """This record cannot be mended by this patch; the message says why."""


class Patch:
    """A JSON Patch (RFC 6902, a list) or a JSON Merge Patch (RFC 7396, an object)."""

    def __init__(self, text: bytes) -> None:
        self.sha256 = hashlib.sha256(text).hexdigest()
        changes = json.loads(text)
        if not isinstance(changes, list | dict):
            raise jsonpatch.InvalidJsonPatch("it is neither a list (RFC 6902) nor an object (RFC 7396)")
        self._merge = changes if isinstance(changes, dict) else None
        self._operations = jsonpatch.JsonPatch(changes if isinstance(changes, list) else [])

    def mend(self, value: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """The data, changed; a structured CloudEvent becomes a binary one. Raises CannotPatchError."""
        found = envelope(headers, value)
        data, others = (
            (found.data, _binary(found, headers)) if isinstance(found, Envelope) else (value, headers)
        )
        try:
            changed = self._changed(json.loads(data))
            return json.dumps(changed, ensure_ascii=False, allow_nan=False).encode(), others
        except (ValueError, RecursionError) as error:
            raise CannotPatchError(f"its bytes are no JSON that can be changed: {error}") from error
        except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, TypeError) as error:
            raise CannotPatchError(f"the patch does not fit it: {error}") from error

    def _changed(self, record: Any) -> Any:
        return self._operations.apply(record) if self._merge is None else _merged(record, self._merge)


def _binary(found: Envelope, headers: Headers) -> Headers:
    """The headers of the same event in binary mode; those of a record that is none stay."""
    named = dict(headers)
    if not (named.get("content-type") or b"").lower().startswith(b"application/cloudevents"):
        return headers
    kept = [(name, value) for name, value in headers if name != "content-type"]
    attributes = {"ce_id": found.id, "ce_source": found.source, "ce_type": found.type}
    texts = [(name, text.encode()) for name, text in attributes.items() if text is not None]
    return [*kept, ("ce_specversion", b"1.0"), *texts, ("content-type", b"application/json")]


def _merged(target: Any, changes: Any) -> Any:
    """RFC 7396: objects are merged, null removes, anything else replaces."""
    if not isinstance(changes, dict):
        return changes
    base = dict(target) if isinstance(target, dict) else {}
    for name, change in changes.items():
        if change is None:
            base.pop(name, None)
        else:
            base[name] = _merged(base.get(name), change)
    return base


def read_patch(path: Path) -> Patch:
    """Read a patch file. Raises EverloopError for what is none."""
    mend = 'Write [{"op": "replace", "path": "/origin", "value": "EWR"}], or {"origin": "EWR"} to merge.'
    try:
        return Patch(path.read_bytes())
    except (OSError, ValueError, jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        raise EverloopError(f"{path} is no JSON patch: {error}", mend) from error
