import json
from datetime import UTC, datetime

import pytest
from everloop_schemas import cloudevents
from everloop_schemas.events import RecordAccepted, VectorComputed
from everloop_schemas.rejected import Rejected
from everloop_trainer.entrypoints.data_events import LOG, VECTORS

NOW = datetime(2013, 1, 1, 5, 15, 0, 250, tzinfo=UTC)
RECORD = RecordAccepted(
    kind="label",
    id="é",
    source="s",
    event_time=NOW,
    known_at=NOW,
    fields={"a": 1, "b": 0.1, "c": None, "d": True, "e": "x"},
)
VECTOR = VectorComputed(
    id="a",
    pipeline_version=2,
    log_partition=3,
    log_offset=9,
    event_time=NOW,
    known_at=NOW,
    values=[1.0, None, False, "x", 2**53 + 1],
)


@pytest.mark.parametrize(("events", "event"), [(LOG, RECORD), (VECTORS, VECTOR)])
@pytest.mark.parametrize("structured", [False, True])
def test_the_fast_reader_reads_what_the_total_one_reads(events, event, structured):
    """A shortcut that changed a value would train on other numbers than the stream computed."""
    value, headers = cloudevents.encode(event, id="1", source="/ingest")
    if structured:
        whole = {
            "specversion": "1.0",
            "id": "1",
            "source": "/x",
            "type": event.type_name(),
            "data": json.loads(value),
        }
        value, headers = json.dumps(whole).encode(), [("content-type", b"application/cloudevents+json")]
    kept = events.read(value, headers)
    expected = event.model_dump()
    assert {name: getattr(kept, name) for name in kept.__struct_fields__} == {
        name: expected[name] for name in kept.__struct_fields__
    }
    assert [type(v) for v in getattr(kept, "values", [])] == [type(v) for v in expected.get("values", [])]


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (None, []),
        (b"", [("ce_id", None)]),
        (b"\xff\xfe", None),
        (b"{}", None),
        (b"[" * 5000, None),
        (b'{"kind": "label", "id": NaN}', None),
        (b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"other")]),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(value, headers):
    """Poison goes to the dead letters; an exception here would stop the trainer for good."""
    _, ours = cloudevents.encode(RECORD, id="1", source="/ingest")
    refused = LOG.read(value, ours if headers is None else headers)
    assert isinstance(refused, Rejected)
    assert refused.code


def test_a_time_without_a_zone_is_refused():
    """It would be read as another hour on another machine."""
    value, headers = cloudevents.encode(RECORD, id="1", source="/ingest")
    naive = value.replace(b"00Z", b"00").replace(b"50Z", b"50")
    assert naive != value
    assert isinstance(LOG.read(naive, headers), Rejected)
