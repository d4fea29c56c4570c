"""JSON from outside: one object, and nothing that two readers could understand differently.

Codes of refusal: `too-large`, `invalid-utf8`, `malformed-json`, `not-an-object`, `duplicate-key`,
`number-range`, `too-deep`.
"""

import json
from typing import Any

import msgspec

from everloop_schemas.rejected import Rejected

__all__ = ["MAX_BYTES", "MAX_DEPTH", "strict_json"]

MAX_DEPTH = 8
MAX_BYTES = 1 << 20
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
_decode = msgspec.json.Decoder().decode


class _DuplicateKeyError(ValueError):
    pass


def strict_json(
    data: bytes, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES
) -> dict[str, Any] | Rejected:
    """Read one JSON object, or say why not; never raises.

    Refused: NaN and Infinity (JSON has neither), floats beyond a double and whole numbers beyond 64 bits,
    duplicate keys, nesting deeper than `max_depth`, more than `max_bytes`, text that is not UTF-8.

    Example:
        >>> strict_json(b'{"id": "a1", "id": "a2"}').code
        'duplicate-key'
    """
    if len(data) > max_bytes:
        return Rejected(
            "too-large", f"{len(data)} bytes; at most {max_bytes} are read", "send smaller records"
        )
    try:
        obj = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return _refusal(data, error)
    if type(obj) is not dict:
        return Rejected(
            "not-an-object", f"a JSON {_kind(obj)}, not an object", "send one JSON object a record"
        )
    # Two quotes delimit every text in the source. A flat object without duplicate keys shows exactly its own
    # texts; a duplicate hides at least its key. Counting quotes proves the common case.
    texts = len(obj)
    for value in obj.values():
        kind = type(value)
        if kind is str:
            texts += 1
        elif kind is dict or kind is list or (kind is int and not _LOWEST <= value <= _HIGHEST):
            return _examine(obj, data, max_depth)
    if _quotes(data) == 2 * texts:
        return obj
    return _examine(obj, data, max_depth)


def _quotes(data: bytes) -> int:
    """How many quotes delimit texts in `data`, which is known to be valid JSON."""
    if b"\\" not in data:
        return data.count(b'"')
    unpaired = data.replace(b"\\\\", b"")
    return unpaired.count(b'"') - unpaired.count(b'\\"')


def _examine(obj: dict[str, Any], data: bytes, max_depth: int) -> dict[str, Any] | Rejected:
    """The slow way: nested values, or something to refuse."""
    refusal = _walk(obj, max_depth)
    if refusal is not None:
        return refusal
    try:
        json.loads(data.decode("utf-8"), object_pairs_hook=_refuse_duplicates)
    except _DuplicateKeyError as error:
        return Rejected("duplicate-key", f"the key {error} stands there twice", "send each key once")
    except RecursionError:
        return _too_deep(max_depth)
    except ValueError as error:
        return Rejected("malformed-json", str(error)[:200], "send JSON as RFC 8259 defines it")
    return obj


def _walk(value: Any, depth_left: int) -> Rejected | None:
    """Check depth and whole numbers; `depth_left` bounds the recursion."""
    if isinstance(value, dict | list):
        if depth_left == 0:
            return _too_deep(MAX_DEPTH)
        children = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (_walk(child, depth_left - 1) for child in children)), None)
    if type(value) is int and not _LOWEST <= value <= _HIGHEST:
        return _out_of_range()
    return None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _DuplicateKeyError(ascii(key)[:80])
        seen.add(key)


def _refusal(data: bytes, error: Exception) -> Rejected:
    if isinstance(error, RecursionError):
        return _too_deep(MAX_DEPTH)
    if isinstance(error, UnicodeError):
        return Rejected("invalid-utf8", "the bytes are not UTF-8", "encode the JSON text as UTF-8")
    if isinstance(error, msgspec.ValidationError):
        return _out_of_range()
    return _malformed(data, str(error))


def _malformed(data: bytes, reason: str) -> Rejected:
    if any(word in data for word in (b"NaN", b"Infinity")):
        mend = "send null for a missing number: JSON has no NaN and no Infinity"
    else:
        mend = "send JSON as RFC 8259 defines it"
    return Rejected("malformed-json", reason, mend)


def _too_deep(max_depth: int) -> Rejected:
    return Rejected("too-deep", f"nested deeper than {max_depth} levels", "send flat records")


def _out_of_range() -> Rejected:
    reason = "a whole number beyond 64 bits or a float beyond a double"
    return Rejected("number-range", reason, "send such numbers as text")


def _kind(value: object) -> str:
    names: dict[type, str] = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
