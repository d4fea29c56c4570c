"""One JSON text for one value, so that digests and signatures agree everywhere."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["dumps"]


def dumps(obj: Any) -> bytes:
    r"""Write `obj` as canonical JSON: sorted keys, no spaces, UTF-8, floats at their shortest.

    Keys that are not text (the partition numbers of a cut) become text before they are sorted, so that
    reading the result and writing it again gives the same bytes.

    Raises:
        ValueError: for NaN, infinity and text that is not Unicode (lone surrogates).
        TypeError: for values that JSON does not have.

    Example:
        >>> dumps({"b": [1.0, None], "a": "é", 10: True, 9: False})
        b'{"10":true,"9":false,"a":"\xc3\xa9","b":[1.0,null]}'
    """
    text = json.dumps(
        _with_text_keys(obj), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def _with_text_keys(obj: Any) -> Any:
    if isinstance(obj, Mapping):
        return {_key_text(key): _with_text_keys(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_with_text_keys(item) for item in obj]
    return obj


def _key_text(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise TypeError(f"an object's key must be text or a whole number, not {type(key).__name__}")
