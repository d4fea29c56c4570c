"""Tensors of the Open Inference Protocol v2, as JSON data and as raw bytes."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["DATATYPES", "FLOATS", "INTEGERS", "InvalidInput", "Tensor", "from_raw", "to_raw"]


class InvalidInput(ValueError):  # noqa: N818  (the caller's mistake, not ours)
    """The request cannot be answered as it is; the message names the input and what to do."""


@dataclass(slots=True)
class Tensor:
    """One named column. `data` is flat, one value a row."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any]


INTEGERS: dict[str, tuple[int, int]] = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
"""Whole number types and their lowest and highest value."""
FLOATS = frozenset({"FP16", "FP32", "FP64"})
DATATYPES = frozenset({"BOOL", "BYTES", *INTEGERS, *FLOATS})

_CODES = {
    "BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
}  # fmt: skip
_LENGTH = struct.Struct("<I")


def from_raw(name: str, datatype: str, raw: bytes) -> list[Any]:
    """The values of a raw tensor: little-endian, BYTES with a 4-byte length before each element.

    Raises:
        InvalidInput: when the bytes do not fit the datatype.
    """
    if datatype == "BYTES":
        return list(_texts(name, raw))
    code = _CODES.get(datatype)
    if code is None:
        raise InvalidInput(f"input {name!r}: datatype {datatype!r} is not known; {_known()}")
    size = struct.calcsize(code)
    if len(raw) % size:
        raise InvalidInput(f"input {name!r}: {len(raw)} bytes are no whole number of {datatype} values")
    return list(struct.unpack(f"<{len(raw) // size}{code}", raw))


def _texts(name: str, raw: bytes) -> Iterable[str]:
    at = 0
    while at < len(raw):
        if at + _LENGTH.size > len(raw):
            raise InvalidInput(f"input {name!r}: the raw BYTES end within a length")
        end = at + _LENGTH.size + _LENGTH.unpack_from(raw, at)[0]
        if end > len(raw):
            raise InvalidInput(f"input {name!r}: the raw BYTES end within an element")
        try:
            yield raw[at + _LENGTH.size : end].decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"input {name!r}: an element is not UTF-8 text") from error
        at = end


def to_raw(datatype: str, values: Sequence[Any]) -> bytes:
    """The raw form of an output's values (FP64 or BYTES)."""
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join([part for text in texts for part in (_LENGTH.pack(len(text)), text)])
    return struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)


def _known() -> str:
    return f"known are {', '.join(sorted(DATATYPES))}"
