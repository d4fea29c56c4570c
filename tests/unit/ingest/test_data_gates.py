"""Gates on windows of data: what breaks them, what does not, and what lifts a block."""

from datetime import timedelta

import pytest
from everloop_ingest.domain.book import blocked_reason
from everloop_ingest.domain.rules import Rules
from everloop_schemas.events import Acceptance
from unit.ingest.data_gates_rig import BEGIN, Rig, hour, profile


def some(rows: list[dict], every: int, **changes: object) -> list[dict]:
    """Each `every`-th row changed."""
    return [{**each, **changes} if number % every == 0 else each for number, each in enumerate(rows)]


def feed_hours(rig: Rig, first: int, last: int) -> None:
    for number in range(first, last):
        rig.feed(hour(number))


def test_usual_data_breaks_nothing() -> None:
    """An alarm about nothing is an alarm that people learn to ignore."""
    rig = Rig(learned_hours=24 * 21)
    feed_hours(rig, 0, 24 * 14)
    assert rig.broken == {}
    assert rig.book.judged == []


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"heat": None}, "heat:null"),
        ({"site": "moon"}, "site:unseen"),
        ({"pressure": 32.0}, "pressure:above"),
        ({"pressure": 1.0}, "pressure:below"),
    ],
)
def test_a_fault_in_a_third_of_the_rows_is_found_within_its_hour(changes: dict, gate: str) -> None:
    """Nobody declared anything: the training's own data says what is usual."""
    rig = Rig(learned_hours=24 * 21)
    feed_hours(rig, 0, 5)
    rig.feed(some(hour(5), 3, **changes))
    feed_hours(rig, 6, 8)
    assert gate in rig.broken[5]
    assert gate in rig.held
    event = rig.book.judged[0]
    assert (event.verdict, event.blocked, event.window_start) == ("broken", True, BEGIN + timedelta(hours=5))
    found = next(each for each in event.gates if each.gate == gate)
    assert found.figure == pytest.approx(1 / 3, abs=0.05)
    assert found.rows == 60
    assert found.at_most is not None
    assert found.at_most < 1 / 3
    assert found.examples == (["moon"] if gate == "site:unseen" else [])


def test_a_quiet_hour_raises_no_alarm() -> None:
    """Two rows of three without heat say next to nothing."""
    rig = Rig(learned_hours=24 * 21)
    rig.feed(some(hour(0, rows=3), 2, heat=None))
    feed_hours(rig, 1, 4)
    assert 0 not in rig.broken


def test_a_later_window_lifts_the_block_only_if_it_would_have_shown_the_fault() -> None:
    """A night with three rows is no proof that the gauge works again."""
    rig = Rig(learned_hours=24 * 21)
    rig.feed(some(hour(0), 3, heat=None))
    rig.feed(hour(1, rows=3))
    rig.feed(hour(2, rows=3))
    rig.feed(hour(3, rows=3))
    assert rig.held == ["heat:null"]
    feed_hours(rig, 4, 7)
    assert rig.held == []
    assert [event.verdict for event in rig.book.judged] == ["broken", "passed"]
    assert not rig.book.judged[-1].blocked


def test_new_data_is_announced_as_blocked_before_its_window_is_over() -> None:
    """Training must not start in the middle of a bad hour because the hour has not ended."""
    rig = Rig(learned_hours=24 * 21)
    feed_hours(rig, 0, 3)
    rig.feed(some(hour(3), 2, heat=None), announces=True)
    assert rig.held == ["heat:null"]
    assert "heat:null is 0.5, expected at most" in str(blocked_reason(rig.book.standing))


def test_slow_change_is_no_fault() -> None:
    """A season that warms is drift, and the monitor's matter: only what jumps breaks a gate."""
    rig = Rig(learned_hours=24 * 21)
    for number in range(24 * 20):
        warmer = 10 * number / (24 * 20)
        rig.feed([{**each, "heat": each["heat"] + warmer} for each in hour(number)])
    assert not {gate for gates in rig.broken.values() for gate in gates if not gate.endswith("a day")}
    for number in range(24 * 20, 24 * 20 + 3):
        rig.feed([{**each, "heat": each["heat"] * 1.6} for each in hour(number)])
    assert "heat:above" in rig.broken[24 * 20]


def test_a_window_too_small_to_be_judged_excuses_nothing() -> None:
    """A fault that begins with a dozen rows must not become the usual state of things."""
    rig = Rig(learned_hours=24 * 21)
    rig.feed(some(hour(0, rows=12), 2, heat=None))
    for number in range(1, 6):
        rig.feed(some(hour(number), 2, heat=None))
    assert "heat:null" in rig.broken[1]
    assert set(rig.broken) == {1, 2, 3}


def test_half_the_usual_volume_is_found() -> None:
    """A dead producer sends nothing wrong, only less."""
    rig = Rig()
    for number in range(24 * 35):
        rig.feed_counts(number, 200)
    for number in range(24 * 35, 24 * 35 + 4):
        rig.feed_counts(number, 90)
    assert rig.broken[24 * 35] == ["volume"]
    assert rig.book.judged[0].gates[0].figure == pytest.approx(0.45)


def test_an_hour_without_any_row_is_judged_when_time_goes_on() -> None:
    """Silence has no record of its own."""
    rig = Rig()
    for number in range(24 * 35):
        rig.feed_counts(number, 100)
    for number in range(24 * 35 + 3, 24 * 35 + 6):
        rig.feed_counts(number, 100)
    assert rig.broken[24 * 35] == rig.broken[24 * 35 + 1] == ["volume"]


def test_doubled_records_and_refused_ones_are_found_by_the_past_weeks() -> None:
    """A producer that sends all twice, or in a new format, is broken although its good rows are good."""
    rig = Rig()
    feed_hours(rig, 0, 48)
    at = BEGIN + timedelta(hours=48)
    rig.feed(hour(48), duplicates=[at] * 60, quarantined=[at] * 30)
    feed_hours(rig, 49, 52)
    assert rig.broken[48] == ["duplicates", "quarantined"]


def test_a_few_doubled_records_at_night_excuse_no_doubled_day() -> None:
    """The fault begins in an hour that is too small to be judged."""
    rig = Rig()
    feed_hours(rig, 0, 48)
    for number, rows in ((48, 5), (49, 60), (50, 60), (51, 60)):
        rig.feed(hour(number, rows=rows), duplicates=[BEGIN + timedelta(hours=number)] * rows)
    assert rig.broken == {49: ["duplicates"]}


DECLARED = """
quality:
  learned: false
  expect:
    - {expect: not_null, field: heat, mostly: 0.9}
    - {expect: between, field: pressure, min: 5, max: 40, mostly: 0.95, on_broken: warn}
    - {expect: in_set, field: site, values: [north, south]}
    - {expect: row_count, min: 20}
    - {expect: fresh, within: 10m, mostly: 0.9}
"""


def test_declared_expectations_are_held_against_each_window() -> None:
    """What a team would have written for Great Expectations, without a job that runs it."""
    rig = Rig(DECLARED)
    feed_hours(rig, 0, 3)
    assert rig.broken == {}
    old = (BEGIN - timedelta(hours=9)).isoformat().replace("+00:00", "Z")
    rig.feed(some(hour(3), 2, heat=None))
    rig.feed(some(hour(4), 2, pressure=99.0))
    rig.feed(some(hour(5), 60, site="moon"))
    rig.feed(hour(6, rows=10))
    rig.feed(some(hour(7), 3, at=old))
    feed_hours(rig, 8, 10)
    assert rig.broken == {
        3: ["not_null(heat)"],
        4: ["between(pressure, min=5, max=40)"],
        5: ["in_set(site, 2 values)"],
        6: ["row_count(min=20)"],
        7: ["fresh(within 0:10:00)"],
    }


def test_a_declared_share_makes_allowance_for_few_rows() -> None:
    """`mostly: 0.9` of ten rows is one that may be null; two or three happen by chance."""
    rig = Rig(DECLARED.replace("- {expect: row_count, min: 20}", ""))
    rig.feed(some(hour(0, rows=10), 4, heat=None))
    feed_hours(rig, 1, 4)
    assert rig.broken == {}


def test_a_warning_does_not_hold_training_back() -> None:
    """`on_broken: warn` tells, and that is all."""
    rig = Rig(DECLARED)
    rig.feed(some(hour(0), 2, pressure=99.0))
    feed_hours(rig, 1, 4)
    assert rig.held == []
    assert [(event.verdict, event.blocked) for event in rig.book.judged] == [("broken", False)]


def test_a_person_opens_the_broken_gates_until_the_next_profile() -> None:
    """The gauge reads higher for good: one decision, not one an hour; the next model knows the data."""
    rig = Rig(learned_hours=24 * 21)
    for number in range(3):
        rig.feed(some(hour(number), 3, heat=None))
    rig.book.accept(Acceptance(by="ana", reason="known", at=BEGIN), rig.rules)
    assert rig.held == []
    assert rig.book.judged[-1].verdict == "accepted"
    assert rig.book.judged[-1].decided_by == "ana"
    for number in range(3, 8):
        rig.feed(some(hour(number), 3, heat=None))
    assert rig.held == []
    renewed = profile(
        rig.contract, [each for n in range(-200, 0) for each in some(hour(n), 3, heat=None)], "run-2"
    )
    rig.profile, rig.rules = renewed, Rules(rig.contract.definition, renewed)
    for number in range(8, 11):
        rig.feed(some(hour(number), 3, heat=None))
    assert rig.held == []
    for number in range(11, 14):
        rig.feed([{**each, "heat": None} for each in hour(number)])
    assert rig.held == ["heat:null"]


def test_windows_are_forgotten() -> None:
    """Memory is bounded by five weeks of windows, and a window's counts by a week."""
    rig = Rig(learned_hours=48)
    for number in range(24 * 45):
        rig.feed_counts(number, 3, **{"heat:null": 1})
    assert len(rig.book.windows) <= 24 * 38
    assert sum(bool(window.learned) for window in rig.book.windows.values()) <= 24 * 9
