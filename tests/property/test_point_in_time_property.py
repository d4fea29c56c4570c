"""Features as they were known: whatever comes in later, the past answers as it did."""

from datetime import UTC, datetime, timedelta

import msgspec
from everloop.history.point_in_time import Answers, Question
from everloop_features import Record, derive, microseconds
from everloop_features import compile as compile_features
from everloop_schemas.pipeline import load
from hypothesis import given, settings
from hypothesis import strategies as st

PIPELINE = load("""
pipeline: p
partition_by: [shop]
partitions: 1
observation:
  event_time: at
  fields: {shop: {type: category}, size: {type: number, nullable: true}}
label: {type: binary, fields: {gain: {type: number}}, value: {won: gain > 0}, expected_after: 1h}
features:
  n: count(window='5m', by=[shop])
  mean_size: mean(size, window='1h', by=[shop])
  rate: mean(won, window='1h', by=[shop], over=labels)
""")
COMPILED = compile_features(PIPELINE)
START = datetime(2020, 1, 1, tzinfo=UTC)


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Known in the order of the log; happened whenever, also long before it was known."""
    shop = draw(st.sampled_from("xy"))
    times = (minute(draw(st.integers(-100, 100))), START)
    if draw(st.booleans()):
        size = draw(st.none() | st.floats(-10, 10))
        return Record("observation", str(draw(st.integers(0, 9))), *times, {"shop": shop, "size": size})
    if draw(st.integers(0, 3)) == 0:
        return Record("label", str(draw(st.integers(0, 9))), *times, {"shop": shop}, retraction=True)
    fields = {"shop": shop, "gain": draw(st.floats(-1, 1))}
    return Record("label", str(draw(st.integers(0, 9))), *times, fields)


def known(log: list[Record], steps: list[int]) -> list[Record]:
    """The same records, each known some minutes after the one before it."""
    moment, found = 0, []
    for record, step in zip(log, steps, strict=True):
        moment += step
        found.append(msgspec.structs.replace(record, known_at=minute(moment)))
    return found


questions = st.lists(
    st.builds(
        lambda at, back, shop: Question(
            0,
            microseconds(minute(at)),
            microseconds(minute(at - back)),
            {"shop": shop, "size": 1.0},
        ),
        st.integers(-5, 120),
        st.integers(0, 30),
        st.sampled_from("xyz"),
    ),
    min_size=1,
    max_size=8,
)


def ask(log: list[Record], asked: list[Question], page: int) -> list[list[object]]:
    answers = Answers(COMPILED, asked)
    entries = list(enumerate(log))
    for first in range(0, len(entries), page):
        answers.take(entries[first : first + page])
    return list(answers.finish())


@settings(max_examples=150, deadline=None)
@given(st.data(), st.lists(records(), max_size=40), questions, st.integers(1, 50), st.integers(1, 50))
def test_later_data_changes_no_answer_and_neither_do_pages(data, log, asked, page, other_page) -> None:
    """A training set built today from last month's moments must be the one built last month."""
    steps = data.draw(st.lists(st.integers(0, 10), min_size=len(log), max_size=len(log)))
    all_known = known(log, steps)
    last_us = max(question.at_us for question in asked)
    then = [record for record in all_known if microseconds(record.known_at) <= last_us]
    assert ask(then, asked, page) == ask(all_known, asked, other_page)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.lists(records(), max_size=40), questions)
def test_an_answer_is_the_vector_that_the_observation_would_have_got(data, log, asked) -> None:
    """Asked about and computed in the stream, the same observation has the same features, bit for bit."""
    steps = data.draw(st.lists(st.integers(0, 10), min_size=len(log), max_size=len(log)))
    all_known = known(log, steps)
    for question, found in zip(asked, ask(all_known, asked, 7), strict=True):
        stream = COMPILED.new_state(1).begin()
        then = [one for one in all_known if microseconds(one.known_at) <= question.at_us]
        for _ in derive(COMPILED, enumerate(then), stream):
            pass
        assert COMPILED.vector(question.fields, question.event_time_us, stream) == found
