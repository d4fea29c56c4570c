"""Reading is total: whatever arrives, the answer is a value, never an exception."""

import json
from typing import Any

import pytest
from everloop_schemas import canonical
from everloop_schemas.cloudevents import Envelope, Rejected, decode, envelope
from everloop_schemas.events import ArtifactChunk, Event, ModelTrained, RecordAccepted
from everloop_schemas.partition import key_bytes, murmur2, partition_of
from everloop_schemas.pipeline import Pipeline, load
from everloop_schemas.strict_json import strict_json
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.sampled_from(
    [
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_specversion",
        "ce_time",
        "content-type",
        "traceparent",
        "everloop-index",
        "x",
    ]
)
CONTENTS = (
    st.none()
    | st.binary(max_size=30)
    | st.sampled_from(
        [
            b"1.0",
            b"io.everloop.ingest-record-accepted-v1",
            b"application/cloudevents+json",
            b"2013-01-01T00:00:00Z",
        ]
    )
)
HEADERS = st.none() | st.lists(st.tuples(NAMES | st.text(max_size=5), CONTENTS), max_size=8)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False)
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=6)
PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"\\",
        b'"a"',
        b'"b"',
        b'"\\u0061"',
        b"1",
        b"-",
        b"e9",
        b" ",
        b"NaN",
        b"null",
        b"\xff",
        b"\\ud800",
    ]
)
JSON_LIKE = st.lists(PIECES, max_size=14).map(b"".join)


@given(st.binary() | JSON_LIKE)
def test_strict_json_is_total(data: bytes) -> None:
    """One record that raised would stop its whole partition."""
    assert isinstance(strict_json(data), dict | Rejected)


@given(JSON_LIKE | OBJECTS.map(lambda obj: json.dumps(obj).encode()))
def test_strict_json_agrees_with_the_standard_library(data: bytes) -> None:
    """What we accept means what every other reader says it means; and nothing is accepted twice over."""
    found = strict_json(data, max_depth=100)
    if isinstance(found, dict):
        pairs: list[bool] = []

        def note(items: list[tuple[str, Any]]) -> dict[str, Any]:
            pairs.append(len(dict(items)) == len(items))
            return dict(items)

        assert json.loads(data, object_pairs_hook=note) == found
        assert all(pairs)


@given(OBJECTS)
def test_strict_json_takes_every_valid_object(obj: dict[str, Any]) -> None:
    """A valid record that is refused is a record lost."""
    encodable = json.loads(json.dumps(obj, ensure_ascii=True).encode("utf-8", "replace"))
    found = strict_json(json.dumps(encodable).encode(), max_depth=100)
    assert isinstance(found, Rejected) or found == encodable
    if isinstance(found, Rejected):
        assert found.code == "malformed-json"
        assert any(0xD800 <= ord(letter) < 0xE000 for letter in json.dumps(obj, ensure_ascii=False))


@given(HEADERS, st.none() | st.binary() | JSON_LIKE)
def test_envelope_is_total(headers: list[tuple[str, bytes | None]] | None, value: bytes | None) -> None:
    """Null and broken headers are what real producers send."""
    assert isinstance(envelope(headers, value), Envelope | Rejected)


@pytest.mark.parametrize("model", [RecordAccepted, ModelTrained, ArtifactChunk])
@given(headers=HEADERS, value=st.none() | st.binary() | JSON_LIKE)
def test_decode_is_total(
    model: type[Event], headers: list[tuple[str, bytes | None]] | None, value: bytes | None
) -> None:
    """A consumer that raises on poison loops on it for ever."""
    assert isinstance(decode(model, value, headers), model | Rejected)


@given(OBJECTS)
def test_decode_is_total_behind_valid_headers(obj: dict[str, Any]) -> None:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"s"),
        ("ce_type", RecordAccepted.type_name().encode()),
    ]
    assert isinstance(decode(RecordAccepted, json.dumps(obj).encode(), headers), RecordAccepted | Rejected)


@given(JSON)
def test_canonical_json_round_trips(value: Any) -> None:
    """A digest taken before and after a trip through Kafka must be one digest."""
    try:
        text = canonical.dumps(value)
    except UnicodeEncodeError:
        return  # lone surrogates are refused
    again = json.loads(text)
    assert canonical.dumps(again) == text
    assert again == value


@given(st.binary(max_size=64), st.integers(1, 1000))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    assert 0 <= partition_of(key, partitions) < partitions
    assert 0 <= murmur2(key) < 2**32


@given(st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_size=4))
def test_every_value_has_key_bytes(values: list[bool | float | str | None]) -> None:
    assert isinstance(key_bytes(values), bytes)


YAML_LIKE = st.lists(
    st.sampled_from(
        [
            "pipeline: x\n",
            "label:",
            " ",
            "\n",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ": ",
            "&a ",
            "*a",
            "!!int ",
            "'",
            '"',
            "a",
            "? ",
            "|",
            "#",
            "<<: ",
            "\t",
            "1",
            "~",
            "---\n",
            "features: ",
            "gates: ",
        ]
    ),
    max_size=16,
).map("".join)


@given(st.text() | YAML_LIKE)
def test_load_is_total(text: str) -> None:
    """No traceback reaches a person who made a mistake in a file."""
    found = load(text, "x.yaml")
    if not isinstance(found, Pipeline):
        assert found
        assert all(problem.line >= 1 and problem.rule and problem.mend for problem in found)
