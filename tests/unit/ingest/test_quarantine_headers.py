"""The quarantine keeps a record's headers, so that a replay is what the producer sent."""

import base64
from datetime import UTC, datetime

import pytest
from aiokafka import ConsumerRecord
from everloop_ingest.application.intake import Intake
from everloop_ingest.domain.contract import Contract
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import RecordQuarantined
from everloop_schemas.pipeline import Pipeline, load

TEXT = """
pipeline: flights
partition_by: [origin]
observation: {event_time: departure, fields: {origin: {type: category}}}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
"""


@pytest.fixture
def quarantined():
    """The event of a broken record with these headers."""
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline)
    contract = Contract(pipeline)
    topic = "producer-record-published-v1.flights"
    intake = Intake(lambda: contract, topic, 0, lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def derive(headers) -> RecordQuarantined:
        record = ConsumerRecord(topic, 0, 5, 0, 0, b"k", b"{nope", None, 1, 5, tuple(headers))
        (out,) = intake.derive([record]).outputs
        event = decode(RecordQuarantined, out.value, out.headers)
        assert isinstance(event, RecordQuarantined), event
        return event

    return derive


def test_headers_are_kept_in_order_with_their_bytes(quarantined) -> None:
    """Nulls, bytes that are no text and names that come twice are part of what was sent."""
    sent = [("a", b"\xff\x00"), ("a", None), ("b", b"")]
    kept = quarantined(sent).headers
    assert [(name, None if text is None else base64.b64decode(text)) for name, text in kept] == sent


def test_headers_larger_than_the_records_room_are_left_out(quarantined) -> None:
    """A quarantine record that its topic does not take would stop the worker."""
    assert quarantined([("big", b"x" * 60_000)]).headers is None
