"""Whatever HTTP refuses, the worker quarantines, for the same reasons: one contract at both doors."""

import json
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord
from everloop_ingest.application.intake import Intake
from everloop_ingest.application.reading import read_data
from everloop_ingest.domain.contract import Checked, Contract, Refused
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import RecordAccepted, RecordQuarantined
from everloop_schemas.pipeline import Pipeline, load
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
TEXT = """
pipeline: flights
partition_by: [origin]
partitions: 1
observation:
  event_time: departure
  replay_sources: [history]
  allowed_lateness: 7d
  fields:
    origin: {type: category, values: [EWR, JFK], actions: {allowed-values: quarantine}}
    carrier: {type: category, pattern: "[A-Z]{2}", max_length: 3, actions: {pattern: warn, type: quarantine}}
    fare: {type: number, nullable: true, min: 0, max: 100, actions: {max: quarantine}}
    seats: {type: integer, nullable: true, min: 1, actions: {min: warn}}
    landed: {type: timestamp, nullable: true}
  rules:
    - {name: in_order, expr: landed >= departure, action: warn}
    - {name: paid, expr: fare > seats, action: quarantine}
label:
  type: number
  fields: {delay: {type: number, max: 5000}}
  value: {late: delay}
  rules: [{name: not_zero, expr: delay != 0}]
"""
FOUND = load(TEXT)
assert isinstance(FOUND, Pipeline), FOUND
CONTRACT = Contract(FOUND)

OBSERVATION = {"id": "a", "departure": "2026-01-10T05:15:00Z", "origin": "EWR", "carrier": "UA"}
LABEL = {"id": "a", "event_time": "2026-01-10T05:15:00Z", "origin": "EWR", "delay": 22}
RETRACTION = {"id": "a", "origin": "EWR", "retraction": True}
TIMES = ["2026-01-10T05:15:00Z", "2026-01-01T00:00:00Z", "2026-01-10T12:06:00+00:00", "yesterday"]
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 50, 101, 2.0, 1.5, 6000, 2**62]),
    st.sampled_from(["EWR", "LHR", "UA", "ua", "UAL", "", "x\x00", *TIMES]),
    st.lists(st.integers(), max_size=1),
)
NAMES = ["id", "departure", "event_time", "origin", "carrier", "fare", "seats", "landed", "delay", "known_at"]
RECORDS = st.tuples(
    st.sampled_from([("observation", OBSERVATION), ("label", LABEL), ("retraction", RETRACTION)]),
    st.dictionaries(st.sampled_from([*NAMES, "retraction", "x"]), VALUES, max_size=3),
    st.sets(st.sampled_from(["id", "origin", "carrier", "delay", "departure"]), max_size=1),
)


@given(RECORDS, st.sampled_from(["history", "http"]))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_both_doors_judge_alike(given_: Any, source: str) -> None:
    """A producer that changes from HTTP to Kafka must not meet another contract."""
    (kind, base), changes, absent = given_
    record = {key: value for key, value in {**base, **changes}.items() if key not in absent}
    data = json.dumps(record).encode()
    at_http = read_data(CONTRACT, kind, data, source=source, now=NOW, may_replay=True)
    (event,) = _through_the_worker(kind, data, source)
    if isinstance(at_http, Refused):
        assert isinstance(event, RecordQuarantined)
        assert list(event.violations) == list(at_http.violations)
        assert (event.reason, event.id) == (at_http.violations[0].rule, at_http.id)
    else:
        assert isinstance(at_http, Checked)
        assert isinstance(event, RecordAccepted)
        assert list(event.warnings) == list(at_http.warnings)


def _through_the_worker(kind: str, data: bytes, source: str) -> list[Any]:
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", source.encode()),
        ("ce_type", f"io.everloop.{kind}".encode()),
    )
    topic = "producer-record-published-v1.flights"
    record = ConsumerRecord(topic, 0, 0, 0, 0, b"k", data, None, 1, len(data), headers)
    step = Intake(lambda: CONTRACT, topic, 0, lambda: NOW).derive([record])
    models = {model.topic: model for model in (RecordAccepted, RecordQuarantined)}
    events = [decode(models[out.topic.partition(".")[0]], out.value, out.headers) for out in step.outputs]
    assert not step.dead
    return events
