"""Which partition a record belongs to: the rule of Kafka's Java client and of aiokafka (murmur2).

Every service computes the partition itself, since librdkafka clients hash keys differently.
"""

import struct
from collections.abc import Iterable
from functools import lru_cache

from everloop_schemas.events import Value

__all__ = ["key_bytes", "murmur2", "partition_of"]

_MASK = 0xFFFFFFFF
_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_EXACT_FLOAT = 2.0**53
"""Above it neighbouring whole numbers share a float, and the text of a float says no more than itself."""


def key_bytes(values: Iterable[Value]) -> bytes:
    r"""The Kafka key of a record: its partition key's values, joined by the unit separator; null is empty.

    Example:
        >>> key_bytes(["EWR", None, 3, 3.0, True])
        b'EWR\x1f\x1f3\x1f3\x1ftrue'
    """
    return "\x1f".join(map(_text, values)).encode("utf-8", "surrogatepass")


def _text(value: Value) -> str:
    # 3 and 3.0 are one number in JSON, and producers write both
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOAT:
        return str(int(value))
    return str(value)


@lru_cache(maxsize=65_536)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition (0-based) among `partitions` that `key` belongs to.

    Example:
        >>> partition_of(b"EWR", 4)
        3
    """
    if partitions < 1:
        raise ValueError(f"a topic has at least one partition, not {partitions}")
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client computes it, as an unsigned 32-bit number."""
    words = len(data) // 4
    state = _SEED ^ len(data)
    for word in struct.unpack_from(f"<{words}I", data):
        mixed = (word * _MULTIPLIER) & _MASK
        mixed ^= mixed >> 24
        state = ((state * _MULTIPLIER) & _MASK) ^ ((mixed * _MULTIPLIER) & _MASK)
    tail = data[words * 4 :]
    if tail:
        state = ((state ^ int.from_bytes(tail, "little")) * _MULTIPLIER) & _MASK
    state = ((state ^ (state >> 13)) * _MULTIPLIER) & _MASK
    return state ^ (state >> 15)
