"""What a pipeline file may ask of its records, and what becomes of those that break it."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from everloop_ingest.application.log_entries import entry_of
from everloop_ingest.domain.contract import CODES, Checked, Contract, Refused
from everloop_schemas.pipeline import Pipeline, load

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
TEXT = """
pipeline: flights
partition_by: [origin]
observation:
  event_time: departure
  allowed_lateness: 7d
  WHEN_LATE
  rules:
    - {name: lands_after_take_off, expr: landed >= departure, description: swap the two times}
    - {name: seats_fit, expr: sold <= seats, action: quarantine}
    - {name: paid, expr: "not (fare == 0 and sold > 0)", action: warn}
  fields:
    origin: {type: category}
    carrier: {type: category, pattern: "[A-Z0-9]{2}", actions: {pattern: quarantine}}
    tail:
      {type: string, nullable: true, max_length: 6, pattern: "N[0-9A-Z]*", pii: true,
       actions: {max-length: warn}}
    fare: {type: number, nullable: true, min: 0, max: 1000, actions: {max: warn}}
    seats: {type: integer, nullable: true, actions: {type: quarantine}}
    sold: {type: integer, nullable: true, min: 0}
    landed: {type: timestamp, nullable: true}
label:
  type: number
  fields: {delay: {type: number}, taxi: {type: number, nullable: true}}
  value: {late: delay}
  rules: [{name: taxi_in_delay, expr: taxi <= delay}]
"""
GOOD = {"id": "a1", "departure": "2026-01-10T05:15:00Z", "origin": "EWR", "carrier": "UA"}
LABEL = {"id": "a1", "event_time": "2026-01-10T05:15:00Z", "origin": "EWR", "delay": 22}


def contract(when_late: str = "") -> Contract:
    pipeline = load(TEXT.replace("WHEN_LATE", when_late))
    assert isinstance(pipeline, Pipeline), pipeline
    return Contract(pipeline)


CONTRACT = contract()


def check(changes: dict[str, Any], kind: Any = "observation", used: Contract = CONTRACT) -> Checked | Refused:
    record = {**(LABEL if kind == "label" else GOOD), **changes}
    return used.check(kind, record, source="http", now=NOW)


def outcome(*given: Any, **options: Any) -> tuple[str, list[str]]:
    """What becomes of a record, and the codes of the rules that it breaks."""
    found = check(*given, **options)
    if isinstance(found, Checked):
        return "accept", [violation.rule for violation in found.warnings]
    codes = [violation.rule for violation in found.violations]
    assert all(code in CODES or code.startswith("rule:") for code in codes)
    return found.action, codes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("accept", [])),
        ({"tail": "N123", "fare": 90, "seats": 100, "sold": 100}, ("accept", [])),
        ({"landed": "2026-01-10T05:15:00Z"}, ("accept", [])),
        ({"landed": "2026-01-10T05:14:59Z"}, ("refuse", ["rule:lands_after_take_off"])),
        ({"landed": "2026-01-10T06:14:59+02:00"}, ("refuse", ["rule:lands_after_take_off"])),
        ({"sold": 3}, ("accept", [])),
        ({"sold": 3, "seats": 2}, ("quarantine", ["rule:seats_fit"])),
        ({"sold": 3, "fare": 0}, ("accept", ["rule:paid"])),
        ({"carrier": "ua"}, ("quarantine", ["pattern"])),
        ({"carrier": "UAL"}, ("quarantine", ["pattern"])),
        ({"tail": "N123456"}, ("accept", ["max-length"])),
        ({"tail": "X1"}, ("refuse", ["pattern"])),
        ({"fare": 1000.5}, ("accept", ["max"])),
        ({"fare": -1}, ("refuse", ["min"])),
        ({"seats": "many"}, ("quarantine", ["type"])),
        ({"seats": 2.0}, ("accept", [])),
    ],
)
def test_each_rule_has_its_own_consequence(changes: dict[str, Any], expected: tuple[str, list[str]]) -> None:
    """A typo must not cost a record, a broken sensor must not enter the log: the file says which."""
    assert outcome(changes) == expected


def test_the_gravest_rule_decides_and_comes_first() -> None:
    """The reason that people see must be the one that kept the record out."""
    assert outcome({"fare": 2000, "carrier": "x"}) == ("quarantine", ["pattern", "max"])
    assert outcome({"fare": 2000, "carrier": "x", "sold": -1}) == ("refuse", ["min", "pattern", "max"])
    assert outcome({"fare": 2000, "carrier": "x", "surprise": 1}) == (
        "refuse",
        ["unknown-field", "pattern", "max"],
    )


def test_a_record_that_warns_keeps_its_values() -> None:
    """To warn is to let in: nothing is cut or set to null."""
    found = check({"fare": 2000, "tail": "N123456", "seats": 2.0})
    assert isinstance(found, Checked)
    values = msgspec.to_builtins(found.fields)
    assert (values["fare"], values["tail"], values["seats"]) == (2000.0, "N123456", 2)


def test_personal_data_stands_in_no_reason() -> None:
    """Reasons are logged, shown and kept; who flew is nobody's business there."""
    found = check({"tail": "X98765"})
    assert isinstance(found, Refused)
    assert [violation.value for violation in found.violations] == ["(personal data)"]


def test_a_rule_says_what_it_saw_and_what_to_do() -> None:
    found = check({"landed": "2026-01-09T00:00:00Z"})
    assert isinstance(found, Refused)
    (violation,) = found.violations
    assert violation.value == "departure=2026-01-10T05:15:00Z, landed=2026-01-09T00:00:00Z"
    assert violation.mend == "swap the two times"


def test_labels_have_rules_of_their_own() -> None:
    assert outcome({}, "label") == ("accept", [])
    assert outcome({"taxi": 22.5}, "label") == ("refuse", ["rule:taxi_in_delay"])


@pytest.mark.parametrize(
    ("when_late", "expected"), [("", "quarantine"), ("when_late: quarantine", "quarantine")]
)
def test_what_is_later_than_allowed_is_quarantined(when_late: str, expected: str) -> None:
    used = contract(when_late)
    assert outcome({"departure": "2026-01-03T12:00:00Z"}, used=used) == ("accept", [])
    assert outcome({"departure": "2026-01-03T11:59:59.999999Z"}, used=used) == (expected, ["late"])


def test_what_is_late_may_be_applied_now() -> None:
    used = contract("when_late: apply")
    assert outcome({"departure": "2025-01-03T12:00:00Z"}, used=used) == ("accept", ["late"])


def test_labels_are_never_late() -> None:
    """Outcomes take as long as they take."""
    assert outcome({"event_time": "2020-01-01T00:00:00Z"}, "label") == ("accept", [])


def test_a_row_to_be_quarantined_has_a_key() -> None:
    """The HTTP edge publishes it; the worker must find it where its id would be."""
    spoilt, broken, keyless = (
        check({"seats": "many"}),
        check({"carrier": "x"}),
        check({"origin": 1, "seats": "x"}),
    )
    assert isinstance(spoilt, Refused)
    assert isinstance(broken, Refused)
    assert isinstance(keyless, Refused)
    assert (spoilt.key, broken.key) == (b"EWR", b"EWR")
    assert keyless.action == "refuse"


def test_retractions_need_an_id_and_the_key() -> None:
    """An observation is found by its id, on the partition of its key."""
    base = {"id": "a1", "origin": "EWR"}
    for data in ({**base, "retraction": True}, {**base, "event_time": "2026-01-10T11:00:00Z"}):
        found = CONTRACT.check("retraction", data, source="http", now=NOW)
        assert isinstance(found, Checked), found
        assert (found.kind, found.id, found.key, found.known_at) == ("retraction", "a1", b"EWR", NOW)
        assert msgspec.to_builtins(found.fields) == {"origin": "EWR"}
    for data, rule in (
        ({"id": "a1"}, "required"),
        ({**base, "carrier": "UA"}, "unknown-field"),
        ({**base, "retraction": False}, "type"),
        ({**base, "retraction": "yes"}, "type"),
        ({**base, "event_time": "soon"}, "time"),
    ):
        refused = CONTRACT.check("retraction", data, source="http", now=NOW)
        assert isinstance(refused, Refused), data
        assert [violation.rule for violation in refused.violations] == [rule]


def test_a_retraction_says_why() -> None:
    """A year later somebody asks where the rows went."""
    base = {"id": "a1", "origin": "EWR"}
    found = CONTRACT.check("retraction", {**base, "reason": "sensor 7 was broken"}, source="http", now=NOW)
    assert isinstance(found, Checked), found
    assert found.reason == "sensor 7 was broken"
    assert msgspec.to_builtins(found.fields) == {"origin": "EWR"}
    assert b'"reason":"sensor 7 was broken"' in msgspec.json.encode(entry_of("http", found))
    for reason in (3, "x" * 501, "\x00"):
        plain = reason != "\x00"
        refused = CONTRACT.check(
            "retraction", {**base, "reason": reason}, source="http", now=NOW, text_is_plain=plain
        )
        assert isinstance(refused, Refused), reason
        assert [(one.field, one.rule) for one in refused.violations] == [("reason", "type")]
    told = CONTRACT.check("label", {**base, "reason": "x"}, source="http", now=NOW)
    assert isinstance(told, Refused)


def test_plain_json_says_that_it_retracts() -> None:
    assert CONTRACT.kind_of(None, {"id": "a1", "origin": "EWR", "retraction": True}) == "retraction"
    assert CONTRACT.kind_of("io.everloop.retraction", {"id": "a1"}) == "retraction"
    assert CONTRACT.kind_of("io.everloop.label", {"id": "a1", "retraction": True}) == "label"


def test_a_field_named_retraction_is_a_field() -> None:
    """Withdrawing must not take a word away from those who used it before."""
    pipeline = load(TEXT.replace("WHEN_LATE", "").replace("tail:", "retraction:"))
    assert isinstance(pipeline, Pipeline), pipeline
    used = Contract(pipeline)
    assert used.kind_of(None, {**GOOD, "retraction": "N1"}) == "observation"
    assert isinstance(used.check("observation", {**GOOD, "retraction": "N1"}, source="s", now=NOW), Checked)


def test_a_hostile_text_cannot_hold_the_worker() -> None:
    """(a+)+$ takes Python's re minutes for thirty letters."""
    pipeline = load(
        TEXT.replace("WHEN_LATE", "")
        .replace('"N[0-9A-Z]*"', '"(a+)+b"')
        .replace("max_length: 6, ", "")
        .replace("pii: true,\n       actions: {max-length: warn}", "pii: true")
    )
    assert isinstance(pipeline, Pipeline), pipeline
    found = Contract(pipeline).check("observation", {**GOOD, "tail": "a" * 100_000}, source="s", now=NOW)
    assert isinstance(found, Refused)
    assert [violation.rule for violation in found.violations] == ["pattern"]


def test_the_end_of_time_is_only_the_future() -> None:
    """A date that a client takes for infinity must not stop the worker."""
    text = TEXT.replace("WHEN_LATE", "").replace(
        "allowed_lateness", "replay_sources: [s]\n  allowed_lateness"
    )
    pipeline = load(text)
    assert isinstance(pipeline, Pipeline), pipeline
    for end in ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"):
        record = {**GOOD, "departure": end, "known_at": end}
        found = Contract(pipeline).check("observation", record, source="s", now=NOW)
        assert isinstance(found, Refused) is end.startswith("9")
