from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from everloop_ingest.domain.contract import CODES, Checked, Contract, Refused
from everloop_schemas.pipeline import Pipeline, load
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TEXT = """
pipeline: flights
partition_by: [origin]
observation:
  event_time: departure
  replay_sources: [history]
  fields:
    origin: {type: category, values: [EWR, JFK]}
    carrier: {type: category}
    distance: {type: number, unit: mi, min: 0, max: 6000}
    wind: {type: number, nullable: true}
    seats: {type: integer, min: 1, nullable: true}
    cargo: {type: boolean, nullable: true}
    note: {type: string, nullable: true}
    booked: {type: timestamp, nullable: true}
label:
  type: binary
  fields: {arrival_delay: {type: integer, unit: min}}
  value: {late: arrival_delay > 15}
"""


def _contract() -> Contract:
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline), pipeline
    return Contract(pipeline)


CONTRACT = _contract()
GOOD = {"id": "a1", "departure": "2026-01-01T05:15:00Z", "origin": "EWR", "carrier": "UA", "distance": 1400}
LABEL = {"id": "a1", "event_time": "2026-01-01T09:00:00Z", "origin": "EWR", "arrival_delay": 22}


def check(record: dict[str, Any], kind: Any = "observation", **options: Any) -> Checked | Refused:
    return CONTRACT.check(kind, record, **{"source": "http", "now": NOW, **options})


def rules(record: dict[str, Any], kind: Any = "observation", **options: Any) -> list[tuple[str | None, str]]:
    found = check(record, kind, **options)
    assert isinstance(found, Refused)
    assert {violation.rule for violation in found.violations} <= CODES
    assert all(violation.mend for violation in found.violations)
    return [(violation.field, violation.rule) for violation in found.violations]


def test_a_good_record_is_normalised() -> None:
    """Two spellings of one value must be one value to every consumer."""
    found = check(
        {
            **GOOD,
            "departure": "2026-01-01T00:15:00-05:00",
            "seats": 180.0,
            "booked": "2025-12-01T01:00:00+01:00",
        }
    )
    assert isinstance(found, Checked)
    assert (found.id, found.event_time, found.known_at) == (
        "a1",
        datetime(2026, 1, 1, 5, 15, tzinfo=UTC),
        NOW,
    )
    assert found.key == b"EWR"
    assert msgspec.to_builtins(found.fields) == {
        "origin": "EWR",
        "carrier": "UA",
        "distance": 1400.0,
        "wind": None,
        "seats": 180,
        "cargo": None,
        "note": None,
        "booked": "2025-12-01T00:00:00Z",
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": 7}, ("id", "id")),
        ({"id": ""}, ("id", "id")),
        ({"id": "x" * 201}, ("id", "id")),
        ({"id": "a\nb"}, ("id", "control-character")),
        ({"departure": "2026-01-01"}, ("departure", "time")),
        ({"departure": "2026-01-01T05:15:00"}, ("departure", "time")),
        ({"departure": 1767244500}, ("departure", "time")),
        ({"departure": None}, ("departure", "time")),
        ({"departure": "0001-01-01T00:00:00+05:00"}, ("departure", "time")),
        ({"departure": "2026-01-01T12:06:00Z"}, ("departure", "event-in-future")),
        ({"origin": "LHR"}, ("origin", "allowed-values")),
        ({"origin": None}, ("origin", "required")),
        ({"carrier": 1}, ("carrier", "type")),
        ({"carrier": "U\x00A"}, ("carrier", "control-character")),
        ({"distance": "1400"}, ("distance", "type")),
        ({"distance": True}, ("distance", "type")),
        ({"distance": -0.5}, ("distance", "min")),
        ({"distance": 6000.5}, ("distance", "max")),
        ({"seats": 1.5}, ("seats", "type")),
        ({"seats": 0}, ("seats", "min")),
        ({"cargo": "yes"}, ("cargo", "type")),
        ({"booked": "yesterday"}, ("booked", "type")),
        ({"surprise": 1}, ("surprise", "unknown-field")),
        ({"wind": {"speed": 3}}, ("wind", "type")),
        ({"known_at": "2026-01-01T06:00:00Z"}, ("known_at", "known-at-not-allowed")),
        ({"known_at": None}, ("known_at", "time")),
    ],
)
def test_each_rule_names_its_field(changes: dict[str, Any], expected: tuple[str, str]) -> None:
    """A producer must see what to mend, by field and by a code that never changes."""
    plain = "\x00" not in str(changes.get("carrier"))
    assert rules({**GOOD, **changes}, text_is_plain=plain) == [expected]


def test_a_span_is_written_as_in_the_pipeline_file() -> None:
    """0:05:00 is not what stands in the file that would have to change."""
    found = check({**GOOD, "departure": "2026-01-01T12:06:00Z"})
    assert isinstance(found, Refused)
    (violation,) = found.violations
    assert violation.mend.startswith("an event time is at most 5m after")


@pytest.mark.parametrize("name", ["id", "departure", "origin", "carrier", "distance"])
def test_required_fields(name: str) -> None:
    """What is missing must not become null in the log."""
    assert rules({key: value for key, value in GOOD.items() if key != name}) == [(name, "required")]


def test_every_violation_is_listed() -> None:
    """Mending one mistake a round trip wears people out."""
    found = rules({"id": "a", "departure": "?", "origin": "LHR", "distance": -1, "x": 1})
    assert found == [
        ("departure", "time"),
        ("origin", "allowed-values"),
        ("carrier", "required"),
        ("distance", "min"),
        ("x", "unknown-field"),
    ]


def test_labels_have_their_own_fields() -> None:
    """A label carries the partition key, so that it meets its observation."""
    found = check(LABEL, "label")
    assert isinstance(found, Checked)
    assert found.key == b"EWR"
    assert rules({**LABEL, "carrier": "UA"}, "label") == [("carrier", "unknown-field")]
    assert rules({**LABEL, "arrival_delay": None}, "label") == [("arrival_delay", "required")]


def test_known_at_needs_a_replay_source_and_the_role() -> None:
    """Whoever may write must not thereby be able to rewrite history."""
    record = {**GOOD, "known_at": "2026-01-01T06:00:00Z"}
    found = check(record, source="history")
    assert isinstance(found, Checked)
    assert found.known_at == datetime(2026, 1, 1, 6, tzinfo=UTC)
    assert rules(record, source="history", may_replay=False) == [("known_at", "known-at-not-allowed")]
    late = {**record, "known_at": "2027-01-01T00:00:00Z"}
    assert rules(late, source="history") == [("known_at", "known-at-in-future")]


def test_kinds_are_told_apart() -> None:
    """Plain JSON has no type: a label is what has every label field and no observation time."""
    assert CONTRACT.kind_of(None, GOOD) == "observation"
    assert CONTRACT.kind_of(None, LABEL) == "label"
    assert CONTRACT.kind_of("io.everloop.label", GOOD) == "label"
    unknown = CONTRACT.kind_of("com.example.thing", GOOD)
    assert isinstance(unknown, Refused)
    assert unknown.violations[0].rule == "unknown-type"


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(
        ["EWR", "JFK", "LHR", "UA", "", "2026-01-01T05:15:00Z", "2026-01-01T05:15:00+02:00", "x" * 300]
    ),
    st.text(max_size=5).filter(lambda text: "\x00" not in text),
    st.lists(st.integers(), max_size=2),
)


@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "wind", "seats", "cargo", "note", "booked", "known_at", "x"]), _VALUES
    )
)
def test_the_fast_way_and_the_slow_way_agree(changes: dict[str, Any]) -> None:
    """A record must not be refused or accepted by accident of the way it took."""
    record = {**GOOD, **changes}
    fast, slow = (check(record, source="history", text_is_plain=plain) for plain in (True, False))
    assert type(fast) is type(slow)
    if isinstance(fast, Refused) and isinstance(slow, Refused):
        assert fast.violations == slow.violations
        assert fast.violations
