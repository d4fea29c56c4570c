"""What a correction takes back, and what is too long ago to be taken back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from everloop_features import Compiled, Record, compile, compiler, decode, derive, microseconds, replay  # noqa: A004
from everloop_schemas.pipeline import Pipeline, load

TEXT = """
pipeline: flights
partition_by: [origin]
partitions: 1
observation:
  event_time: departed
  fields: {origin: {type: category}}
label:
  type: number
  fields: {delay: {type: number}}
  value: {late: delay}
features:
  a_flights: count(window='32d', by=[origin])
  b_outcomes: count(window='320d', by=[origin], over=labels)
  c_delay: sum(late, window='32d', by=[origin], over=labels)
  d_newest: count(last_n=2, by=[origin])
"""
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 1440


def _compiled() -> Compiled:
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline), pipeline
    compiled = compile(pipeline)
    assert isinstance(compiled, Compiled), compiled
    return compiled


def _record(kind: Any, number: int, minutes: int, delay: float = 3.0, **more: Any) -> Record:
    at = START + timedelta(minutes=minutes)
    fields = {"origin": "EWR", **({"delay": delay} if kind == "label" and not more else {})}
    return Record(kind, f"a{number}", at, at, fields, **more)


def _last(log: list[Record]) -> list[Any]:
    *_, last = replay(_compiled(), list(enumerate(log)))
    return last.values


def test_what_was_counted_counts_until_it_is_retracted() -> None:
    """A vector says what was known when it was computed; the next one knows better."""
    log = [
        _record("observation", 1, 0),
        _record("label", 1, 10),
        _record("observation", 2, 20),
        _record("label", 1, 25, retraction=True),
        _record("observation", 3, 30),
        _record("label", 1, 40, 5.0),
        _record("observation", 1, 50),
        _record("observation", 4, 60),
    ]
    vectors = list(replay(_compiled(), list(enumerate(log))))
    assert [(vector.offset, vector.values) for vector in vectors] == [
        (0, [0.0, 0.0, 0.0, 0.0]),
        (2, [1.0, 1.0, 3.0, 1.0]),
        (4, [1.0, 0.0, 0.0, 1.0]),
        (6, [2.0, 0.0, 0.0, 2.0]),
        (7, [3.0, 1.0, 5.0, 2.0]),
    ]


def test_the_label_known_last_is_in_force() -> None:
    """A late copy of an earlier outcome must not turn it back."""
    log = [
        _record("label", 1, 10, 1.0),
        _record("label", 1, 30, 2.0),
        _record("label", 1, 20, 4.0),
        _record("observation", 2, 40),
    ]
    assert _last(log) == [0.0, 1.0, 2.0, 0.0]


def test_a_label_that_is_no_longer_remembered_stays_and_the_revision_counts_beside_it() -> None:
    """The documented rule, after the time for which an observation waits for its label."""
    first = [_record("label", 1, 0, 1.0), _record("observation", 2, 1)]
    revised = [_record("label", 1, 8 * DAY, 2.0), _record("observation", 3, 8 * DAY + 1)]
    assert _last([*first, *revised]) == [1.0, 2.0, 3.0, 1.0]


def test_a_pane_that_holds_something_forgotten_is_left_as_it_is() -> None:
    """A pane of ten days cannot be computed again from seven; the window of shorter panes is exact."""
    first = [_record("label", 1, 0, 1.0), _record("label", 2, 4 * DAY, 1.0)]
    revised = [_record("label", 2, 8 * DAY, 8.0), _record("observation", 3, 8 * DAY + 1)]
    assert START.timestamp() % (10 * DAY * 60) < 6 * DAY * 60, "both labels lie in one pane of ten days"
    assert _last([*first, *revised]) == [0.0, 3.0, 9.0, 0.0]


def test_memory_is_bounded_where_no_label_needs_its_observation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Millions of records a day must not all be remembered for a week."""
    monkeypatch.setattr(compiler, "MOST_REMEMBERED", 100)
    compiled = _compiled()
    log = [_record("observation", number, number * DAY // 50) for number in range(400)]
    log += [_record("label", number, 8 * DAY, retraction=True) for number in (350, 50)]
    state = compiled.new_state(1)
    for first in range(0, len(log), 20):
        overlay = state.begin()
        for _ in derive(compiled, list(enumerate(log[first : first + 20], first)), overlay):
            pass
        overlay.changes()
        state.merge(overlay)
    assert len(state.pending.observations) <= 100 + 20
    now_us = microseconds(START + timedelta(days=8))
    assert compiled.vector({"origin": "EWR"}, now_us, state)[0] == 399.0


def test_a_retraction_is_read_from_the_log() -> None:
    found = decode(
        b'{"kind":"label","id":"a","source":"s","event_time":"2026-01-01T00:00:00Z",'
        b'"known_at":"2026-01-01T00:00:00Z","fields":{"origin":"EWR"},"retraction":true}'
    )
    assert found.retraction
