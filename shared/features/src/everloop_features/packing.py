"""Bytes of the state topic. docs/reference/feature-language.md describes them for other readers.

Keys are `v<version> 0x1f <kind> 0x1f …`, so that two versions of a pipeline share the topic:

* `v3 0x1f observations|labels 0x1f <by names, joined by a comma> 0x1f <MessagePack array of the by values>`
* `v3 0x1f pending 0x1f <block number, 8 bytes, big endian>`
* `v3 0x1f settled`
* `v3 0x1f clock`
* `v3 0x1f definition`: the pipeline's definition as JSON, written first, so that a version outlives the next
* `cut 0x1f v3`: the log offset from which version 3 is published, and the version before it; not of any state

Values are MessagePack arrays whose first item is the format's number: 1 for groups, 2 for the
others.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec

from everloop_features.layout import GroupLayout
from everloop_features.nodes import Key

__all__ = [
    "CLOCK",
    "DEFINITION",
    "FORMAT",
    "GROUP_FORMAT",
    "PENDING",
    "SETTLED",
    "StateFormatError",
    "block_key",
    "cut_key",
    "definition_key",
    "group_prefix",
    "pack",
    "pack_key",
    "position_in",
    "rebuilding_clock",
    "split_key",
    "unpack_formatted",
    "unpack_key",
    "version_of",
]

SEPARATOR = b"\x1f"
CLOCK = b"clock"
CUT = b"cut"
DEFINITION = b"definition"
PENDING = b"pending"
SETTLED = b"settled"
FORMAT = 2
GROUP_FORMAT = 1
_REBUILDING = 0

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Any])


class StateFormatError(ValueError):
    """The bytes are not state that this version wrote: the log must be replayed."""


def version_of(key: bytes) -> int | None:
    """The pipeline version a state topic's key belongs to; None if it is not such a key."""
    head = key.split(SEPARATOR, 1)[0]
    return int(head[1:]) if head[:1] == b"v" and head[1:].isdigit() else None


def definition_key(version: int) -> bytes:
    """The whole key under which a version's definition lies."""
    return f"v{version}".encode() + SEPARATOR + DEFINITION


def cut_key(version: int) -> bytes:
    """The whole key of the cut at which a version's vectors took over; it belongs to no version's state."""
    return CUT + SEPARATOR + f"v{version}".encode()


def rebuilding_clock(position: int) -> bytes:
    """A clock that says: this state is computed again, up to a log offset; nobody reads it as state."""
    return _encoder.encode([_REBUILDING, position])


def position_in(key: bytes, value: bytes) -> int:
    """The log offset that a version's clock entry names, of any format; 0 where there is none."""
    if key.split(SEPARATOR)[1:] != [CLOCK]:
        return 0
    with suppress(StateFormatError):
        position = _unpack(value)[-1:]
        return position[0] if position and isinstance(position[0], int) else 0
    return 0


def split_key(key: bytes) -> tuple[bytes, bytes]:
    """What comes after the version: the kind with its names, and the rest."""
    parts = key.split(SEPARATOR, 3)
    if len(parts) == 4 and parts[1] != PENDING:  # noqa: PLR2004  # version, over, names, values
        return SEPARATOR.join(parts[1:3]), parts[3]
    kind, _, rest = key.partition(SEPARATOR)[2].partition(SEPARATOR)
    return kind, rest


def group_prefix(layout: GroupLayout) -> bytes:
    """The part of a group's key that names its layout."""
    return layout.over.encode() + SEPARATOR + ",".join(layout.names).encode()


def block_key(number: int) -> bytes:
    """The key, without version, of a block of pending records."""
    return PENDING + SEPARATOR + number.to_bytes(8, "big")


def pack_key(key: Key) -> bytes:
    """A group's key in memory as bytes."""
    return _encoder.encode(key if isinstance(key, tuple) else (key,))


def unpack_key(packed: bytes) -> Key:
    """The inverse of `pack_key`."""
    values = _unpack(packed)
    return values[0] if len(values) == 1 else tuple(values)


def pack(values: Iterable[Any]) -> bytes:
    """An array with the format's number in front."""
    return _encoder.encode([FORMAT, *values])


def unpack_formatted(packed: bytes) -> list[Any]:
    """The inverse of `pack`. Raises StateFormatError."""
    values = _unpack(packed)
    if not values or values[0] != FORMAT:
        number = values[0] if values else None
        why = "its computation was interrupted" if number == _REBUILDING else f"unknown format {number!r}"
        raise StateFormatError(why)
    return values[1:]


def _unpack(packed: bytes) -> list[Any]:
    """A MessagePack array. Raises StateFormatError."""
    try:
        return _decoder.decode(packed)
    except msgspec.DecodeError as error:
        raise StateFormatError(f"not MessagePack: {error}") from error
