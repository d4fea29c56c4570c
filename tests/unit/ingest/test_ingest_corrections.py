"""Duplicates, conflicts, revised labels, retracted observations: what enters the log, and after a restart."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from everloop_ingest.application.intake import Intake
from everloop_ingest.domain.contract import Contract
from everloop_ingest.domain.duplicates import content_digest
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import RecordAccepted, RecordQuarantined
from everloop_schemas.pipeline import Pipeline, load
from hypothesis import given, settings
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TOPIC = "producer-record-published-v1.flights"
TEXT = """
pipeline: flights
partition_by: [origin]
partitions: 1
observation:
  event_time: departure
  replay_sources: [history]
  fields:
    origin: {type: category}
    wind: {type: number, nullable: true, max: 100, actions: {max: warn}}
label:
  type: number
  fields: {delay: {type: number}}
  value: {late: delay}
"""


def contract(text: str = TEXT) -> Contract:
    pipeline = load(text)
    assert isinstance(pipeline, Pipeline), pipeline
    return Contract(pipeline)


CONTRACT = contract()
OBSERVATION = {"id": "a", "departure": "2026-01-01T05:15:00Z", "origin": "EWR", "wind": 3}
LABEL = {"id": "a", "event_time": "2026-01-01T06:00:00Z", "origin": "EWR", "delay": 22}
RETRACTION = {"id": "a", "origin": "EWR", "retraction": True}


class Worker:
    """An intake, the log that it writes, and the quarantine."""

    def __init__(self, used: Contract = CONTRACT) -> None:
        self.used, self.log, self.quarantine, self.taken = used, [], [], 0
        self.restart()

    def restart(self) -> None:
        """All that is known is what the log says."""
        self.intake = Intake(lambda: self.used, TOPIC, 0, lambda: NOW)
        self.intake.restore([_record(n, out.value, out.headers) for n, out in enumerate(self.log)])

    def take(self, *values: dict[str, Any], source: str = "history") -> Any:
        """One batch; the counts of what became of its records."""
        headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", source.encode())]
        records = []
        for value in values:
            kind = CONTRACT.kind_of(None, value)
            typed = [*headers, ("ce_type", f"io.everloop.{kind}".encode())]
            records.append(_record(self.taken, json.dumps(value).encode(), typed))
            self.taken += 1
        step = self.intake.derive(records)
        again = self.intake.derive(records)
        assert step.outputs == again.outputs
        self.intake.apply(step.state)
        self.log += [out for out in step.outputs if out.topic.startswith("ingest-record-accepted")]
        self.quarantine += [out for out in step.outputs if out.topic.startswith("ingest-record-quarantined")]
        self.warnings = dict(step.state.warnings)
        return {key: count for key, count in step.state.counts.items() if count}

    @property
    def logged(self) -> list[RecordAccepted]:
        events = [decode(RecordAccepted, out.value, out.headers) for out in self.log]
        assert all(isinstance(event, RecordAccepted) for event in events), events
        return events  # type: ignore[return-value]

    @property
    def reasons(self) -> list[str]:
        events = [decode(RecordQuarantined, out.value, out.headers) for out in self.quarantine]
        return [event.reason for event in events]  # type: ignore[union-attr]


def _record(offset: int, value: Any, headers: Any) -> ConsumerRecord:
    return ConsumerRecord(TOPIC, 0, offset, 0, 0, b"k", value, None, 1, len(value), tuple(headers))


def test_other_content_under_one_id_is_a_conflict() -> None:
    """Two truths under one name: the first stays, and people see the second."""
    worker = Worker()
    counts = worker.take(OBSERVATION, {**OBSERVATION, "wind": 4}, OBSERVATION)
    assert counts == {
        ("accepted", "observation"): 1,
        ("quarantined", "conflict"): 1,
        ("duplicate", "observation"): 1,
    }
    assert len(worker.log) == 1
    assert worker.reasons == ["conflict"]


def test_another_source_is_no_conflict() -> None:
    worker = Worker()
    worker.take(OBSERVATION)
    assert worker.take({**OBSERVATION, "wind": 4}, source="other") == {("accepted", "observation"): 1}


def test_spelling_is_no_content() -> None:
    """A client that is rewritten in another language must not cause conflicts."""
    worker = Worker()
    same = {"wind": 3.0, "origin": "EWR", "departure": "2026-01-01T00:15:00-05:00", "id": "a"}
    absent, null = (
        {**same, "id": "b", "wind": None},
        {k: v for k, v in same.items() if k != "wind"} | {"id": "b"},
    )
    counts = worker.take(OBSERVATION, same, absent, null)
    assert counts == {("accepted", "observation"): 2, ("duplicate", "observation"): 2}


def test_when_it_was_known_is_no_content() -> None:
    """A history that is replayed twice changes nothing."""
    worker = Worker()
    worker.take({**OBSERVATION, "known_at": "2026-01-01T05:20:00Z"})
    counts = worker.take({**OBSERVATION, "known_at": "2026-01-01T05:30:00Z"})
    assert counts == {("duplicate", "observation"): 1}


def test_a_field_that_is_added_to_the_pipeline_makes_no_conflict() -> None:
    """Producers send again around an apply, and yesterday's record is still that record."""
    worker = Worker()
    worker.take(OBSERVATION)
    worker.used = contract(TEXT.replace("    wind:", "    aisle: {type: string, nullable: true}\n    wind:"))
    assert worker.take(OBSERVATION) == {("duplicate", "observation"): 1}
    worker.restart()
    assert worker.take(OBSERVATION) == {("duplicate", "observation"): 1}


def test_a_label_is_revised_and_both_stay_in_the_log() -> None:
    """Outcomes are corrected; what was known before stays known."""
    worker = Worker()
    worker.take(LABEL)
    worker.restart()
    assert worker.take({**LABEL, "delay": 30}) == {("revised", "label"): 1}
    assert [event.fields["delay"] for event in worker.logged] == [22.0, 30.0]
    assert worker.take({**LABEL, "delay": 30}, LABEL) == {("duplicate", "label"): 2}
    worker.restart()
    assert worker.take(LABEL, {**LABEL, "delay": 30}) == {("duplicate", "label"): 2}


def test_a_label_known_before_the_one_in_force_is_a_conflict() -> None:
    """It could not change anything, so somebody should look at it."""
    worker = Worker()
    worker.take({**LABEL, "known_at": "2026-01-01T08:00:00Z"})
    worker.restart()
    counts = worker.take({**LABEL, "delay": 1, "known_at": "2026-01-01T07:59:59.999999Z"})
    assert counts == {("quarantined", "conflict"): 1}
    counts = worker.take({**LABEL, "delay": 1, "known_at": "2026-01-01T08:00:00Z"})
    assert counts == {("revised", "label"): 1}


def test_a_retraction_is_an_entry_of_the_log() -> None:
    """Whoever reads the log must see from where on an observation is withdrawn."""
    worker = Worker()
    assert worker.take(OBSERVATION, RETRACTION, RETRACTION) == {
        ("accepted", "observation"): 1,
        ("accepted", "retraction"): 1,
        ("duplicate", "retraction"): 1,
    }
    entry = worker.logged[-1]
    assert (entry.kind, entry.retraction, entry.id, entry.fields) == ("label", True, "a", {"origin": "EWR"})
    assert (entry.event_time, entry.known_at) == (NOW, NOW)
    assert worker.intake.derive([]).state.tally.records == 1


def test_a_retracted_observation_may_be_published_corrected() -> None:
    """And a late copy of what was withdrawn does not bring it back."""
    worker = Worker()
    worker.take(OBSERVATION, RETRACTION)
    worker.restart()
    assert worker.take(OBSERVATION) == {("duplicate", "observation"): 1}
    assert worker.take({**OBSERVATION, "wind": 4}) == {("accepted", "observation"): 1}
    worker.restart()
    assert worker.take({**OBSERVATION, "wind": 5}) == {("quarantined", "conflict"): 1}
    assert worker.take(RETRACTION, RETRACTION) == {
        ("accepted", "retraction"): 1,
        ("duplicate", "retraction"): 1,
    }


def test_what_the_window_no_longer_holds_can_be_retracted() -> None:
    worker = Worker()
    assert worker.take(RETRACTION) == {("accepted", "retraction"): 1}
    worker.restart()
    assert worker.take(RETRACTION) == {("duplicate", "retraction"): 1}


def test_a_broken_retraction_is_quarantined_as_one() -> None:
    """A replay after mending must know what it was."""
    worker = Worker()
    worker.take({"id": "a", "retraction": True})
    (event,) = [decode(RecordQuarantined, out.value, out.headers) for out in worker.quarantine]
    assert isinstance(event, RecordQuarantined)
    assert (event.kind, event.retraction, event.reason) == ("label", True, "required")


def test_what_stands_in_the_log_is_what_holds() -> None:
    """An id that came back after the horizon stands there twice: the later one is in force."""
    worker = Worker()
    worker.take(OBSERVATION)
    old, worker.log = worker.log, []
    worker.restart()  # as if it were forgotten
    worker.take({**OBSERVATION, "wind": 4})
    worker.log = old + worker.log
    worker.restart()
    assert worker.take({**OBSERVATION, "wind": 4}) == {("duplicate", "observation"): 1}
    assert worker.take(OBSERVATION) == {("quarantined", "conflict"): 1}


def test_warnings_are_counted_and_marked() -> None:
    """Whoever looks at a strange model finds the rows that were let in with a warning."""
    worker = Worker()
    assert worker.take({**OBSERVATION, "wind": 400}) == {("accepted", "observation"): 1}
    assert worker.warnings == {("wind", "max"): 1}
    (event,) = worker.logged
    assert [(each.field, each.rule) for each in event.warnings] == [("wind", "max")]
    assert event.fields["wind"] == 400.0


STEPS = st.lists(
    st.one_of(
        st.builds(
            lambda n, w: {**OBSERVATION, "id": f"a{n}", "wind": w},
            st.integers(0, 2),
            st.sampled_from([1, 2, None]),
        ),
        st.builds(lambda n, d: {**LABEL, "id": f"a{n}", "delay": d}, st.integers(0, 2), st.integers(0, 2)),
        st.builds(lambda n: {**RETRACTION, "id": f"a{n}"}, st.integers(0, 2)),
    ),
    max_size=25,
)


@given(STEPS, st.sets(st.integers(0, 24)), st.sets(st.integers(0, 24)))
@settings(deadline=None)
def test_batches_and_restarts_change_nothing(steps: Any, restarts: set[int], cuts: set[int]) -> None:
    """Whatever is killed and however records are batched, the log holds the same."""
    plain, other, batch = Worker(), Worker(), []
    for step in steps:
        plain.take(step)
    for position, step in enumerate(steps):
        batch.append(step)
        if position in cuts | restarts:
            other.take(*batch)
            batch = []
        if position in restarts:
            other.restart()
    other.take(*batch)
    assert [out.value for out in other.log] == [out.value for out in plain.log]
    assert other.reasons == plain.reasons


TEXTS = st.text(alphabet='a,":{}null\\ é', max_size=12)
FIELDS = st.dictionaries(
    st.sampled_from(["a", "b", "null", "x_1", "Z"]), st.none() | TEXTS | st.booleans() | st.floats(-9, 9)
)


@given(FIELDS)
def test_what_was_written_is_recognised_when_it_is_read_back(fields: dict[str, Any]) -> None:
    """The quick way to drop nulls, for what is written now, and the slow one for what the log holds."""
    written = msgspec.json.encode(dict(sorted(fields.items())))
    read = msgspec.json.encode(dict(sorted(fields.items(), reverse=True)))
    assert content_digest(NOW, written, in_order=True) == content_digest(NOW, read, in_order=False)
    without = msgspec.json.encode({n: v for n, v in sorted(fields.items()) if v is not None})
    assert content_digest(NOW, written, in_order=True) == content_digest(NOW, without, in_order=True)
