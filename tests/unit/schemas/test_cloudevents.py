"""CloudEvents on Kafka: binary written, binary and structured read, everything else refused with a reason."""

import json
from datetime import UTC, datetime

import pytest
from everloop_schemas.cloudevents import Envelope, Rejected, decode, encode, envelope
from everloop_schemas.events import ArtifactChunk, DataArrived, RunFailed

ARRIVED = DataArrived(
    id="n1",
    pipeline="flight-delay",
    partition=3,
    observations=10,
    labels=8,
    known_at=datetime(2013, 1, 1, 10, 15, 0, 125, tzinfo=UTC),
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BINARY = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"a1"),
    ("ce_source", b"crew"),
    ("ce_type", b"io.everloop.label"),
]


def _without(name: str, *more: tuple[str, bytes | None]) -> list[tuple[str, bytes | None]]:
    return [*((key, value) for key, value in BINARY if key != name), *more]


def test_what_is_written_is_read_back() -> None:
    """An event that its own reader refuses would stop the loop."""
    value, headers = encode(
        ARRIVED, id="n1", source="everloop-ingest", time=ARRIVED.known_at, traceparent=TRACE
    )
    assert decode(DataArrived, value, headers) == ARRIVED
    read = envelope(headers, value)
    assert isinstance(read, Envelope)
    assert read[:5] == ("n1", "everloop-ingest", DataArrived.type_name(), ARRIVED.known_at, TRACE)
    assert json.loads(value)["known_at"] == "2013-01-01T10:15:00.000125Z"


def test_structured_mode_is_read() -> None:
    """Producers with a CloudEvents SDK often default to structured mode."""
    event = {
        "specversion": "1.0",
        "id": "n1",
        "source": "x",
        "type": DataArrived.type_name(),
        "time": "2013-01-01T05:15:00-05:00",
        "traceparent": TRACE,
        "data": ARRIVED.model_dump(mode="json"),
    }
    headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    assert decode(DataArrived, json.dumps(event).encode(), headers) == ARRIVED
    read = envelope(headers, json.dumps(event).encode())
    assert isinstance(read, Envelope)
    assert (read.time, read.traceparent) == (datetime(2013, 1, 1, 10, 15, tzinfo=UTC), TRACE)


def test_structured_base64_is_read() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "y", "data_base64": "e30="}
    read = envelope([("content-type", b"application/cloudevents+json")], json.dumps(event).encode())
    assert isinstance(read, Envelope)
    assert read.data == b"{}"


def test_plain_json_has_no_attributes() -> None:
    """A producer without CloudEvents still gets in: ingest decides the kind from the fields."""
    assert envelope(None, b"{}") == Envelope(None, None, None, None, None, b"{}")
    assert envelope([("traceparent", TRACE.encode())], b"{}") == Envelope(
        None, None, None, None, TRACE, b"{}"
    )


def test_a_chunk_travels_as_bytes() -> None:
    chunk = ArtifactChunk(sha256="a" * 64, index=1, count=2, data=b"\xff\x00tree")
    value, headers = encode(chunk, id="c", source="everloop-trainer")
    assert value == b"\xff\x00tree"
    assert decode(ArtifactChunk, value, headers) == chunk
    lost = [(name, data) for name, data in headers if name != "everloop-count"]
    assert getattr(decode(ArtifactChunk, value, lost), "code", "") == "schema"
    broken = [(name, b"\xff" if name == "everloop-sha256" else data) for name, data in headers]
    assert getattr(decode(ArtifactChunk, value, broken), "code", "") == "schema"


@pytest.mark.parametrize(
    ("headers", "value", "code"),
    [
        (BINARY, None, "no-value"),
        (_without("ce_id"), b"{}", "cloudevent"),
        (_without("ce_id", ("ce_id", None)), b"{}", "cloudevent"),
        (_without("ce_id", ("ce_id", b"")), b"{}", "cloudevent"),
        (_without("ce_id", ("ce_id", b"x" * 2000)), b"{}", "cloudevent"),
        (_without("ce_source", ("ce_source", b"\xff")), b"{}", "invalid-header"),
        (_without("ce_specversion"), b"{}", "cloudevent"),
        (_without("ce_specversion", ("ce_specversion", b"0.3")), b"{}", "cloudevent"),
        ([*BINARY, ("ce_id", b"a2")], b"{}", "duplicate-header"),
        ([*BINARY, ("ce_time", b"yesterday")], b"{}", "invalid-time"),
        ([*BINARY, ("ce_time", b"2013-01-01T05:15:00")], b"{}", "invalid-time"),
        ([*BINARY, ("ce_time", b"\xff")], b"{}", "invalid-header"),
        ([("content-type", b"application/cloudevents+json")], b"[]", "not-an-object"),
        ([("content-type", b"application/cloudevents+json")], b"{}", "cloudevent"),
    ],
)
def test_refused_envelopes(headers: list[tuple[str, bytes | None]], value: bytes | None, code: str) -> None:
    """Each refusal is a metric and a dead letter's reason: it must say which."""
    assert getattr(envelope(headers, value), "code", None) == code


@pytest.mark.parametrize(
    "wrong", [{"data": 1}, {"id": 7}, {"time": 7}, {"time": "x"}, {"data_base64": 5}, {"data_base64": "é"}]
)
def test_refused_structured_events(wrong: dict[str, object]) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": DataArrived.type_name(), **wrong}
    refused = decode(
        DataArrived, json.dumps(event).encode(), [("content-type", b"application/cloudevents+json")]
    )
    assert isinstance(refused, Rejected)


def test_a_structured_event_without_data_is_refused() -> None:
    event = {"specversion": "1.0", "id": "1", "source": "x", "type": "y"}
    refused = envelope([("content-type", b"application/cloudevents+json")], json.dumps(event).encode())
    assert getattr(refused, "code", None) == "no-value"


def test_another_events_type_is_refused() -> None:
    """A record on the wrong topic must not be read as something that it is not."""
    value, headers = encode(ARRIVED, id="n1", source="x")
    assert getattr(decode(RunFailed, value, headers), "code", None) == "wrong-type"
    assert getattr(decode(RunFailed, value, []), "code", None) == "wrong-type"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b'"many"', b"null"])
def test_no_event_carries_a_number_that_is_none(number: bytes) -> None:
    value, headers = encode(ARRIVED, id="n1", source="x")
    broken = value.replace(b'"observations":10', b'"observations":' + number)
    assert getattr(decode(DataArrived, broken, headers), "code", None) == "schema"


def test_the_word_nan_in_a_text_is_no_number() -> None:
    failed = RunFailed(
        run_id="r",
        pipeline="p",
        trigger={"kind": "manual", "event_id": "e", "reason": "NaN and Infinity seen"},  # type: ignore[arg-type]
        reason="x",
        mend="y",
    )
    assert decode(RunFailed, *encode(failed, id="1", source="x")) == failed


def test_a_broken_trace_costs_no_event() -> None:
    """W3C asks to ignore a broken traceparent; an event must never be lost to tracing."""
    read = envelope([*BINARY, ("traceparent", b"\xff-not-a-trace")], b"{}")
    assert isinstance(read, Envelope)
    assert read.traceparent is None
