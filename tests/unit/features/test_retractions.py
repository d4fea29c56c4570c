"""A retraction adds nothing to features and takes nothing from them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from everloop_features import Record, compile, decode, replay  # noqa: A004
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
  flights: count(window='1d', by=[origin])
  outcomes: count(window='1d', by=[origin], over=labels)
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


def _record(kind: Any, number: int, minutes: int, **more: Any) -> Record:
    at = START + timedelta(minutes=minutes)
    fields = {"origin": "EWR", **({"delay": 3.0} if kind == "label" and not more else {})}
    return Record(kind, f"a{number}", at, at, fields, **more)


def test_what_was_counted_stays_counted_and_a_retraction_counts_nothing() -> None:
    """State is not rewritten in the past: a vector says what was known when it was computed."""
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline), pipeline
    compiled = compile(pipeline)
    assert not isinstance(compiled, list), compiled
    log = [
        _record("observation", 1, 0),
        _record("label", 1, 10),
        _record("label", 1, 20, retraction=True),
        _record("observation", 2, 30),
    ]
    vectors = list(replay(compiled, list(enumerate(log))))
    assert [(vector.offset, vector.values) for vector in vectors] == [(0, [0.0, 0.0]), (3, [1.0, 1.0])]
    without = [entry for entry in enumerate(log) if entry[0] != 2]
    assert list(replay(compiled, without)) == vectors


def test_a_retraction_is_read_from_the_log() -> None:
    found = decode(
        b'{"kind":"label","id":"a","source":"s","event_time":"2026-01-01T00:00:00Z",'
        b'"known_at":"2026-01-01T00:00:00Z","fields":{"origin":"EWR"},"retraction":true}'
    )
    assert found.retraction
