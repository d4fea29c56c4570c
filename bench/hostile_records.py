# ruff: noqa: E501  # tables of fragments
"""Records as a hostile producer sends them: valid ones and mutations of them, the same for the same seed."""

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Self

from everloop_schemas.partition import key_bytes, partition_of

__all__ = ["PARTITIONS", "PIPELINE", "Hostile", "RawName", "hostile", "valid"]

PARTITIONS = 4
LARGEST = 2_096_000
"""Bytes of a record that the broker still takes (its limit, 2 MiB, is that of the batch around it)."""
PIPELINE = """
pipeline: NAME
partition_by: [origin]
partitions: 4
observation:
  event_time: scheduled_departure
  replay_sources: [history]
  fields:
    origin: {type: category}
    carrier: {type: category, values: [UA, AA, DL]}
    distance: {type: number, unit: mi, min: 0, max: 6000}
    seats: {type: integer, nullable: true}
    wind: {type: number, nullable: true}
    seen: {type: timestamp, nullable: true}
    note: {type: string, nullable: true}
label:
  type: binary
  fields: {arrival_delay: {type: integer, unit: min}}
  value: {late: arrival_delay > 15}
features:
  route: concat(origin, '-', carrier)
  origin_1h: count(window='1h', by=[origin])
  far_1h: mean(distance, window='1h', by=[origin])
  late_3h: mean(late, window='3h', by=[origin], over=labels)
quality: {window: 7h}
"""
ORIGINS = ["EWR", "JFK", "LGA", "ORD", "SFO", "é✈", "a\x1fb", ""]
Header = tuple[str, bytes | None]


class RawName(str):
    """A header's name that is not UTF-8."""

    __slots__ = ("raw",)

    def __new__(cls, raw: bytes) -> Self:
        made = super().__new__(cls, raw.decode("latin-1"))
        made.raw = raw
        return made

    def encode(self, *_: str, **__: str) -> bytes:
        return self.raw


class Hostile(NamedTuple):
    """One record, ready to be sent."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    timestamp_ms: int | None


class Draft:
    """A record on its way from valid to hostile."""

    def __init__(self, chance: random.Random, number: int) -> None:
        self.chance = chance
        self.data = valid(chance, number)
        self.key: bytes | None = key_bytes([self.data["origin"]])
        self.partition = partition_of(self.key, PARTITIONS)
        self.headers: list[Header] = []
        self.timestamp_ms: int | None = None
        self._value: bytes | None = None
        self._set = False

    @property
    def value(self) -> bytes | None:
        return self._value if self._set else json.dumps(self.data).encode()

    @value.setter
    def value(self, value: bytes | None) -> None:
        self._value, self._set = value, True

    def done(self) -> Hostile:
        return Hostile(self.partition, self.key, self.value, self.headers, self.timestamp_ms)


def valid(chance: random.Random, number: int) -> dict:
    """An observation, a label or a retraction; ids come again, with the same and with other content."""
    known = number if chance.random() < 0.8 else chance.randrange(number + 1)
    own = random.Random(known)
    head = {"id": f"o{known}", "origin": own.choice(ORIGINS[:5])}
    kind = chance.choices(("observation", "label", "retraction"), (8, 3, 1))[0]
    at = f"2026-01-{1 + known % 28:02d}T{known % 24:02d}:00:00Z"
    if kind == "label":
        return head | {"event_time": at, "arrival_delay": own.randrange(90)}
    if kind == "retraction":
        return head | {"retraction": True}
    distance = own.randrange(5000) if chance.random() < 0.98 else chance.randrange(5000)
    return head | {"scheduled_departure": at, "carrier": own.choice(["UA", "AA", "DL"]), "distance": distance}


SCALARS = [
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "9" * 30, "-" + "9" * 30, "9" * 5000, "1" + "0" * 400,
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-0", "-0.0", "1.0", "01", "+1", "0x10",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"a\\u0000b"', '"\\u001f"', '"\\u007f"', '""', '"' + "x" * 300 + '"',
    "null", "true", "false", "[]", "{}", "[[]]", '{"a":{"a":1,"a":2}}', '"2026-01-01T00:00:00Z"', '"\\u202e\\ufeff"',
    '"0001-01-01T00:00:00Z"', '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59.999999Z"', '"1e5"', "1767225600",
    '"9999-12-31T23:59:59-14:00"', '"2026-02-30T00:00:00Z"', '"2026-01-01T24:00:00Z"', '"2026-01-01T00:00:60Z"',
    '"2026-01-01"', '"1677-01-01T00:00:00Z"', '"2262-12-31T00:00:00Z"', "1.7976931348623157e308", "5e-324",
]  # fmt: skip
FIELDS = [
    "id", "origin", "carrier", "distance", "seats", "wind", "seen", "note", "scheduled_departure", "event_time",
    "arrival_delay", "known_at", "retraction", "reason", "surprise", "", "__class__", "f0", "é", "id\\u0000",
]  # fmt: skip


def scalar(draft: Draft) -> None:
    """A field of any name with any value, as text: json.dumps would not write most of them."""
    chance = draft.chance
    name, value = chance.choice(FIELDS), chance.choice(SCALARS)
    rest = {key: each for key, each in draft.data.items() if key != name}
    text = json.dumps(rest)[1:]
    draft.value = f'{{"{name}":{value},{text}'.encode()
    if chance.random() < 0.3:
        attributes(draft, source=b"history")


def missing(draft: Draft) -> None:
    draft.data.pop(draft.chance.choice(list(draft.data)))


def duplicate_key(draft: Draft) -> None:
    name = draft.chance.choice(["id", "\\u0069d", "origin", "x"])
    draft.value = f'{{"{name}":"o1",'.encode() + json.dumps(draft.data).encode()[1:]


def truncated(draft: Draft) -> None:
    value = draft.value or b""
    draft.value = value[: draft.chance.randrange(len(value) + 1)]


def flipped(draft: Draft) -> None:
    value = bytearray(draft.value or b" ")
    for _ in range(draft.chance.choice([1, 1, 2, 8])):
        value[draft.chance.randrange(len(value))] ^= 1 << draft.chance.randrange(8)
    draft.value = bytes(value)


def wrapped(draft: Draft) -> None:
    """Around the JSON: a byte order mark, NULs, two documents, comments, another encoding, deep nesting."""
    value, depth = draft.value or b"", draft.chance.choice([7, 8, 9, 100, 5000])
    draft.value = draft.chance.choice([
        b"\xef\xbb\xbf" + value, b"\x00" + value, value + b"\x00", value * 2, value + b"\n", b" " * 1000 + value,
        b"//\n" + value, value.decode("utf-8", "replace").encode("utf-16"), b"[" + value + b"]", b"[" * depth + b"]" * depth,
        b'{"id":' * depth + b"1" + b"}" * depth, b'{"id":"o1","note":' + b"[" * depth + b"]" * depth + b"}",
        b"null", b"1", b'"x"', b"{}", b"", b"\xff\xfe", value.replace(b'"id"', b'"i\xffd"'), b"\x1f\x8b\x08\x00",
        b"{" + b",".join(b'"u%d":1' % n for n in range(draft.chance.choice([20, 200]))) + b"}",
    ])  # fmt: skip


ATTRIBUTES = [
    None, b"", b"1.0", b"0.3", b"1.0 ", b"\xff\xfe", b"x" * 1025, b"x" * 201, b"a\x00b", b"history", b"\x1b[31m",
    b"io.everloop.observation", b"io.everloop.label", b"io.everloop.retraction", b"io.everloop.ingest-record-accepted-v1",
    b"2026-01-01T00:00:00Z", b"2026-01-01", b"0001-01-01T00:00:00+14:00", "\u202e".encode(), b"\xed\xa0\x80",
]  # fmt: skip


def attributes(draft: Draft, source: bytes = b"outside") -> None:
    """Correct CloudEvents headers."""
    data = draft.data
    kind = "retraction" if "retraction" in data else "label" if "arrival_delay" in data else "observation"
    draft.headers += [
        ("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", source),
        ("ce_type", f"io.everloop.{kind}".encode()),
    ]  # fmt: skip


def wrong_attributes(draft: Draft) -> None:
    """One attribute wrong, missing, null or sent twice."""
    attributes(draft)
    chance, position = draft.chance, draft.chance.randrange(4)
    name = draft.headers[position][0]
    wrong = (chance.choice([name, "ce_time", "ce_x", "content-type"]), chance.choice(ATTRIBUTES))
    if chance.random() < 0.5:
        del draft.headers[position]
    draft.headers.append(wrong)


def odd_headers(draft: Draft) -> None:
    """Headers that are nobody's business: reply_to, garbage traces, null values, names of any bytes."""
    names = ["reply_to", "traceparent", "tracestate", "baggage", "correlation_id", "everloop-dlq-reason", "", "é",
             "everloop-partition-tally", "ce_", "content-type", RawName(b"\xff\xfe"), RawName(b"ce_\xc3")]  # fmt: skip
    values = [
        None,
        b"",
        b"\xff",
        b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff-zz",
        b"nobody",
        b"1,2,3",
    ]
    count = draft.chance.choice([1, 2, 5, 40])
    draft.headers += [(draft.chance.choice(names), draft.chance.choice(values)) for _ in range(count)]


def structured(draft: Draft) -> None:
    """A structured CloudEvent, its attributes fuzzed."""
    chance, event = draft.chance, {"specversion": "1.0", "id": "1", "source": "outside"}
    event |= {"type": "io.everloop.observation", "data": draft.data}
    odd = [None, 1, "", "x" * 1025, "a\u0000", [], {}, "2026-01-01T00:00:00Z", "\u202e", "history"]
    if chance.random() < 0.7:
        event[chance.choice([*event, "time", "traceparent", "datacontenttype", "data_base64"])] = (
            chance.choice(odd)
        )
    if chance.random() < 0.2:
        event["data_base64"] = base64.b64encode(json.dumps(draft.data).encode()).decode()
    if chance.random() < 0.2:
        event.pop(chance.choice(list(event)))
    draft.value = json.dumps(event).encode()
    media = [
        b"application/cloudevents+json",
        b"APPLICATION/CLOUDEVENTS+json; charset=x",
        b"application/cloudevents-batch",
    ]
    draft.headers.append(("content-type", chance.choice(media)))


def moved(draft: Draft) -> None:
    """On any partition, under any key, at any time."""
    chance = draft.chance
    draft.partition = chance.randrange(PARTITIONS)
    draft.key = chance.choice([None, b"", b"\xff\x00", b"k" * 5000, draft.key])
    draft.timestamp_ms = chance.choice([None, 0, 1, 2**40, 253402300799999 // 1000])


def tombstone(draft: Draft) -> None:
    draft.value = None


def large(draft: Draft) -> None:
    """Up to the broker's limit, in the value, in the key, in one header, in very many, or in one field."""
    chance = draft.chance
    size = chance.choice([60_000, 400_000, (1 << 20) - 300, (1 << 20) + 1, 1_300_001, 1_900_000, LARGEST])
    where = chance.randrange(7)
    if where == 0:
        draft.value = b"x" * size
    elif where == 1:
        draft.key = b"k" * (size - 300)
    elif where == 2:
        draft.headers.append(("ce_big" if chance.random() < 0.5 else "big", b"h" * (size - 600)))
    elif where == 3:
        draft.headers += [("", None)] * (size // 6)
    elif where == 4:
        draft.data["note"] = "n" * (size - 600)
    elif where == 5:
        draft.data["origin"] = "o" * (size - 600)
    else:
        draft.value = b"{" + b",".join(b'"u%d":1' % n for n in range(size // 12)) + b"}"


MUTATIONS: Sequence[tuple[Callable[[Draft], None], float]] = (
    (lambda _: None, 20), (attributes, 10), (scalar, 20), (missing, 5), (duplicate_key, 4), (truncated, 6), (flipped, 8),
    (wrapped, 8), (wrong_attributes, 8), (odd_headers, 5), (structured, 6), (moved, 8), (tombstone, 2), (large, 0.04),
)  # fmt: skip


def hostile(seed: int, count: int) -> Iterator[Hostile]:
    """`count` records; a part of them is mutated twice."""
    chance = random.Random(seed)
    mutations, weights = zip(*MUTATIONS, strict=True)
    for number in range(count):
        draft = Draft(chance, number)
        for mutate in chance.choices(mutations, weights, k=chance.choice([1, 1, 1, 2])):
            mutate(draft)
        yield draft.done()
