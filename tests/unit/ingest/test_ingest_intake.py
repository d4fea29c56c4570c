import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from everloop_ingest.application.intake import Intake
from everloop_ingest.application.names import TALLY_HEADER
from everloop_ingest.domain.contract import Contract
from everloop_ingest.domain.duplicates import DuplicateWindow, identity
from everloop_ingest.domain.tally import Tally
from everloop_kernel.dead_letters import DeadLetter, DeadLetterLimit, DeadLetterLimitExceeded
from everloop_kernel.settings import PlatformSettings
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import RecordAccepted, RecordQuarantined
from everloop_schemas.partition import partition_of
from everloop_schemas.pipeline import Pipeline, load

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TOPIC = "producer-record-published-v1.flights"
TEXT = """
pipeline: flights
partition_by: [origin]
partitions: 1
observation:
  event_time: departure
  dedupe_records: 10
  notify_every: 5
  fields: {origin: {type: category}}
label:
  type: binary
  fields: {delay: {type: number}}
  value: {late: delay > 15}
"""


def contract(*, partitions: int = 1) -> Contract:
    pipeline = load(TEXT.replace("partitions: 1", f"partitions: {partitions}"))
    assert isinstance(pipeline, Pipeline), pipeline
    return Contract(pipeline)


def intake(found: Contract | None = None, partition: int = 0) -> Intake:
    used = found or contract()
    return Intake(lambda: used, TOPIC, partition, lambda: NOW)


def record(offset: int, value: Any, partition: int = 0, headers: Any = ()) -> ConsumerRecord:
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    size = -1 if data is None else len(data)
    return ConsumerRecord(TOPIC, partition, offset, 0, 0, b"k", data, None, 1, size, tuple(headers))


def observation(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"a{number}", "departure": "2026-01-01T05:15:00Z", "origin": "EWR", **changes}


def logged(step: Any) -> list[Any]:
    return [out for out in step.outputs if out.topic.startswith("ingest-record-accepted")]


def test_derive_changes_nothing_until_it_is_applied() -> None:
    """A transaction that fails must leave no trace, or its records would pass for duplicates."""
    found = intake()
    batch = [record(n, observation(n)) for n in range(3)]
    first, again = found.derive(batch), found.derive(batch)
    assert first.outputs == again.outputs
    found.apply(first.state)
    assert found.derive(batch).outputs == []


def test_log_records_are_events_that_consumers_read() -> None:
    """The log is the platform's only truth."""
    (out,) = intake().derive([record(7, observation(1))]).outputs
    event = decode(RecordAccepted, out.value, out.headers)
    assert isinstance(event, RecordAccepted), event
    assert (event.kind, event.id, event.source, event.known_at) == ("observation", "a1", "kafka", NOW)
    assert (out.key, out.partition, event.fields) == (b"EWR", 0, {"origin": "EWR"})


def test_duplicates_within_and_across_batches_are_dropped() -> None:
    """An observation and its label share an id and are no duplicates of one another; nor are two sources'."""
    found = intake()
    label = {"id": "a1", "event_time": "2026-01-01T06:00:00Z", "origin": "EWR", "delay": 3}
    other = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"b"),
        ("ce_type", b"io.everloop.observation"),
    ]
    step = found.derive(
        [
            record(0, observation(1)),
            record(1, observation(1)),
            record(2, label),
            record(3, observation(1), headers=other),
        ]
    )
    assert len(logged(step)) == 3
    assert step.state.counts["duplicate", "observation"] == 1


def test_a_record_of_another_partition_is_forwarded_untouched() -> None:
    """Only the owner of its key's partition sees every copy of an id."""
    used = contract(partitions=4)
    right = partition_of(b"EWR", 4)
    wrong = (right + 1) % 4
    headers = (("x", None), ("traceparent", b"00-1"))
    (out,) = intake(used, wrong).derive([record(0, observation(1), wrong, headers)]).outputs
    assert (out.topic, out.partition, out.key, out.headers) == (TOPIC, right, b"EWR", headers)
    assert json.loads(out.value) == observation(1)


def test_refused_records_are_quarantined_with_their_bytes() -> None:
    """What cannot be accepted must be possible to look at and to send again."""
    batch = [record(0, b"\x00\xff"), record(1, None), record(2, observation(1, origin=5)), record(3, b"[]")]
    step = intake().derive(batch)
    events = [decode(RecordQuarantined, out.value, out.headers) for out in step.outputs]
    assert all(isinstance(event, RecordQuarantined) for event in events), events
    assert [event.inbound_offset for event in events] == [0, 1, 2, 3]
    assert events[2].reason == "type"
    assert events[3].reason == "not-an-object"


def test_values_too_large_for_the_quarantine_are_dead_letters() -> None:
    """In base64 they would not fit their topic."""
    step = intake().derive([record(0, b"x" * 2_000_000)])
    assert step.outputs == []
    assert [letter.reason_code for letter in step.dead] == ["too-large"]


def test_new_data_is_announced_when_a_multiple_is_reached() -> None:
    """Once per transaction, with what the partition holds now."""
    found = intake()
    step = found.derive([record(n, observation(n)) for n in range(4)])
    assert len(step.outputs) == 4
    found.apply(step.state)
    assert not step.state.announces
    step = found.derive([record(n, observation(n)) for n in range(4, 12)])
    assert step.state.announces
    assert step.state.tally == Tally(12, 0, NOW)


def test_state_is_restored_from_the_log() -> None:
    """After a restart the log itself says what it holds and how much."""
    first = intake()
    outputs = []
    for start in (0, 4):
        step = first.derive([record(n, observation(n)) for n in range(start, start + 4)])
        first.apply(step.state)
        outputs += logged(step)
    second = intake()
    second.restore([_stored(n, out) for n, out in enumerate(outputs)][-3:])
    step = second.derive([record(n, observation(n)) for n in range(5, 10)])
    assert len(logged(step)) == 2
    assert step.state.tally.observations == 10


def test_foreign_bytes_in_the_log_do_not_stop_the_restore() -> None:
    """Whoever wrote them, ingest must start."""
    found = intake()
    found.restore([record(0, b"not json"), record(1, None)])
    assert len(found.derive([record(0, observation(1))]).outputs) == 1


def test_the_window_forgets_the_oldest() -> None:
    """The horizon bounds the memory."""
    window = DuplicateWindow(3)
    window.take({"a": 1, "b": 2, "c": 3, "d": 4})
    assert (window.get("a"), window.get("b"), len(window)) == (None, 2, 3)
    window.take({"b": 5})
    window.resize(2)
    assert (window.get("c"), window.get("d"), window.get("b")) == (None, 4, 5)


def test_identities_do_not_collide() -> None:
    """Kind, source and id must not run into one another."""
    names = {identity(k, s, i) for k in ("observation", "label") for s in ("a", "ab") for i in ("c", "bc")}
    assert len(names) == 8


def test_a_tally_survives_its_header() -> None:
    """Counts and pipeline time, to the microsecond."""
    tally = Tally(3, 4, NOW + timedelta(microseconds=5))
    assert Tally.read(tally.written()) == tally
    assert Tally.read(b"nonsense") is Tally.read(None) is None


def _stored(offset: int, out: Any) -> ConsumerRecord:
    assert any(name == TALLY_HEADER for name, _ in out.headers) or offset not in (3, 7)
    return ConsumerRecord(
        out.topic, 0, offset, 0, 0, out.key, out.value, None, 1, len(out.value), tuple(out.headers)
    )


def test_a_flood_of_oversized_records_stops_nobody() -> None:
    """Whoever may write to the topic could stop ingest for all: a tenth of dead letters ends its process."""
    step = intake().derive([record(number, b"x" * 1_400_000) for number in range(5)])
    limit = DeadLetterLimit("everloop-ingest", PlatformSettings(dead_letter_limit_count=1))
    limit.check(5, step.dead)
    limit.count(5, step.dead)
    with pytest.raises(DeadLetterLimitExceeded):
        limit.check(2, [DeadLetter(record(7, b""), "defect", "")] * 2)


@pytest.mark.parametrize(
    "hostile",
    [
        record(0, {"id": "a", "departure": "2026-01-01T05:15:00Z", "origin": "o" * 1_048_000}),
        record(0, observation(1), headers=[("", None)] * 300_000),
        record(0, b"{}", headers=[("", None)] * 300_000),
        record(0, {f"u{number}": 1 for number in range(80_000)}),
        record(0, observation(1), headers=[("big", b"x" * 2_090_000)]),
    ],
)
def test_whatever_ingest_makes_of_a_record_fits_its_topics(hostile: ConsumerRecord) -> None:
    """A result that its topic refuses takes the batch apart, and counts as the service's own failure."""
    step = intake().derive([hostile])
    assert len(step.outputs) + len(step.dead) == 1
    for out in step.outputs:
        headers = sum(len(name) + len(value or b"") for name, value in out.headers)
        assert len(out.key or b"") + len(out.value or b"") + headers < 2_090_000


def test_a_long_partition_key_is_refused() -> None:
    """State and caches hold keys: a million of a megabyte each are no service's memory."""
    step = intake().derive([record(0, observation(1, origin="o" * 5000))])
    event = decode(RecordQuarantined, step.outputs[0].value, step.outputs[0].headers)
    assert isinstance(event, RecordQuarantined)
    assert [(each.field, each.rule) for each in event.violations] == [("origin", "max-length")]


@pytest.mark.parametrize("source", ["a\x00b", "\x1b[31m"])
def test_a_source_that_http_refuses_is_quarantined(source: str) -> None:
    """A NUL in a source would come to every database behind the log, and none takes it."""
    attributes = {"specversion": "1.0", "id": "1", "source": source, "type": "io.everloop.observation"}
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    step = intake().derive([record(0, observation(1), headers=headers)])
    event = decode(RecordQuarantined, step.outputs[0].value, step.outputs[0].headers)
    assert isinstance(event, RecordQuarantined)
    assert event.reason == "source"
