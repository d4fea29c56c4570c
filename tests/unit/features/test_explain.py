"""`explain-vector`: each value of a vector with the records that made it."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from everloop_features import Record, replay
from everloop_features import compile as compile_features
from everloop_features.explain import Explainer, same_bits
from everloop_schemas.pipeline import load

FILE = """
pipeline: p
partition_by: [shop]
observation:
  event_time: at
  fields: {shop: {type: category}, kind: {type: category}, size: {type: number, nullable: true}}
label:
  type: binary
  fields: {gain: {type: number}}
  value: {won: gain > 0}
  expected_after: 1h
features:
  double: size * 2 + count(window='1h', by=[shop])
  n: count(window='1h', by=[shop])
  sizes: count(size, window='1d', by=[shop])
  mean_size: mean(size, window='1d', by=[shop, kind])
  last_size: last(size, window='1d', by=[shop])
  told: count(window='1d', by=[shop], over=labels)
  rate: mean(won, window='7d', by=[shop, kind], over=labels)
"""
START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def pipeline():
    loaded = load(FILE)
    assert not isinstance(loaded, list), loaded
    return loaded


def observation(
    minute: float, number: str, size: float | None = 1.0, shop: str = "x", kind: str = "a"
) -> Record:
    at = START + timedelta(minutes=minute)
    return Record("observation", number, at, at, {"shop": shop, "kind": kind, "size": size})


def label(minute: float, number: str, gain: float, shop: str = "x") -> Record:
    at = START + timedelta(minutes=minute)
    return Record("label", number, at, at, {"shop": shop, "gain": gain})


def retraction(minute: float, number: str) -> Record:
    at = START + timedelta(minutes=minute)
    return Record("label", number, at, at, {"shop": "x"}, retraction=True)


def explain(pipeline, log: list[Record], newest: int = 5, page: int = 3):
    """What made the vector of the log's last record, and the vector that the stream computed."""
    explainer = Explainer(pipeline, log[-1], newest=newest)
    entries = list(enumerate(log[:-1]))
    for first in range(0, len(entries), page):
        explainer.add(entries[first : first + page])
    values = {value.feature: value for value in explainer.explain().values}
    compiled = compile_features(pipeline)
    *_, last = replay(compiled, enumerate(log))
    return values, dict(zip(compiled.names, last.values, strict=True))


def parts(value):
    (aggregate,) = value.aggregates
    return [(one.offset, one.id, one.value) for one in aggregate.newest]


def test_each_aggregate_names_the_records_in_its_window_and_what_they_add(pipeline):
    """A surprising value can be followed to the records behind it, and to no others."""
    log = [
        observation(0, "a", 4.0),
        observation(200, "b", None),
        observation(205, "c", 2.0, kind="b"),
        observation(206, "d", 8.0, shop="y"),
        label(207, "a", 3.0),
        label(208, "b", -3.0),
        observation(210, "e", 5.0),
    ]
    values, _ = explain(pipeline, log)
    assert parts(values["n"]) == [(1, "b", 1.0), (2, "c", 1.0)]
    assert parts(values["sizes"]) == [(0, "a", 1.0), (2, "c", 1.0)]
    assert parts(values["mean_size"]) == [(0, "a", 4.0)]
    assert parts(values["rate"]) == [(4, "a", 1.0), (5, "b", 0.0)]
    assert values["double"].fields == {"shop": "x", "size": 5.0}
    assert values["double"].aggregates == values["n"].aggregates


def test_a_label_before_its_observation_is_found_too(pipeline):
    """It counts from its observation on; leaving it out would make the sum not add up."""
    values, computed = explain(pipeline, [label(0, "a", 1.0), observation(5, "a"), observation(9, "b")])
    assert parts(values["rate"]) == [(0, "a", 1.0)]
    assert parts(values["told"]) == [(0, "a", 1.0)]
    assert values["rate"].value == computed["rate"] == 1.0


def test_what_was_corrected_is_not_found(pipeline):
    """The list must not name a label that was revised, or an observation that was retracted."""
    log = [
        observation(0, "a", 4.0),
        observation(1, "b", 2.0),
        label(2, "a", 1.0),
        label(3, "b", 1.0),
        label(4, "a", -1.0),
        retraction(5, "b"),
        label(6, "b", -1.0),
        observation(7, "c"),
    ]
    values, computed = explain(pipeline, log)
    assert parts(values["n"]) == [(0, "a", 1.0)]
    assert parts(values["rate"]) == [(4, "a", 0.0)]
    assert values["rate"].value == computed["rate"] == 0.0
    again, _ = explain(pipeline, [*log[:-1], observation(8, "b", 2.0), log[-1]])
    assert parts(again["rate"]) == [(4, "a", 0.0), (6, "b", 0.0)]


def test_output_is_bounded_to_the_newest_and_still_counts_all(pipeline):
    """A key with a million records must not print a million lines."""
    log = [observation(minute / 10, str(minute)) for minute in range(200)]
    values, _ = explain(pipeline, log, newest=2)
    (aggregate,) = values["n"].aggregates
    assert [one.id for one in aggregate.newest] == ["197", "198"]
    assert (aggregate.found, aggregate.records, aggregate.value) == (199, 199, 199.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_records_found_are_those_that_the_state_counts(pipeline, seed):
    """The list must be the whole truth: as many records as were counted, and the same bits as streamed."""
    chance = random.Random(seed)
    log, minute = [], 0.0
    for number in range(400):
        minute += chance.expovariate(1 / 4)
        shop = chance.choice("xy")
        if number % 3 == 2:
            log.append(label(minute, str(chance.randrange(number + 5)), chance.uniform(-1, 1), shop))
        else:
            size = chance.choice([None, chance.gauss(0, 100)])
            log.append(observation(minute, str(number), size, shop, chance.choice("ab")))
    values, computed = explain(
        pipeline, [*log, observation(minute, "last")], page=chance.choice([1, 7, 1000])
    )
    for name, value in values.items():
        assert same_bits(value.value, computed[name]), name
        for aggregate in value.aggregates:
            assert aggregate.found == aggregate.records, name


def test_bits_tell_apart_what_prints_alike():
    assert same_bits(0.1 + 0.2, 0.30000000000000004)
    assert not same_bits(0.0, -0.0)
    assert not same_bits(1, 1.0)
