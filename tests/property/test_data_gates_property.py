"""What holds for every feed: verdicts do not depend on batches, and few rows are never an alarm."""

import random
from typing import Any

from everloop_ingest.domain.book import Book
from everloop_schemas.shares import learn_share, surprise
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.ingest.data_gates_rig import BEGIN, Rig, hour, tallied

RIG = Rig(
    "quality: {expect: [{expect: not_null, field: heat, mostly: 0.8}, {expect: row_count, min: 5}]}",
    learned_hours=24 * 3,
)


def feed(rows: list[dict[str, Any]], cuts: list[int]) -> Book:
    """The book after these rows, a batch from each cut to the next."""
    book, known_at = Book("pumps"), None
    for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        if begin < end:
            for each in tallied(RIG.contract, RIG.profile, rows[begin:end], known_at=known_at):
                book.add(each, RIG.rules, BEGIN)
                known_at = each.known_at
    return book


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.data())
def test_a_verdict_does_not_depend_on_how_records_are_cut_into_batches(
    seed: int, data: st.DataObject
) -> None:
    """A worker that was busy must judge as one that was idle."""
    chance = random.Random(seed)
    rows = [each for number in range(8) for each in hour(number, rows=chance.choice((2, 20, 50)))]
    rows = [{**each, "heat": None} if chance.random() < 0.2 else each for each in rows]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1), max_size=12)))
    one, other = feed(rows, []), feed(rows, cuts)
    assert one.windows == other.windows
    assert one.standing == other.standing
    assert one.judged == other.judged


@given(
    st.integers(1, 3),
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=60),
)
def test_few_rows_are_never_an_alarm(rows: int, observed: float, past: list[tuple[int, int]]) -> None:
    """Whatever the past: a row is as surprising as its share is rare, and three are three times that."""
    pattern = learn_share([min(k, n) for k, n in past], [n for _, n in past])
    if 0.01 <= pattern.share <= 0.99:
        assert surprise(observed, rows, pattern.share, pattern.correlation) <= rows * 4.7


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), min_size=1, max_size=60))
def test_no_past_window_breaks_what_was_learned_from_it(past: list[tuple[int, int]]) -> None:
    """An invariant that its own training data breaks is none."""
    counts, totals = [min(k, n) for k, n in past], [n for _, n in past]
    pattern = learn_share(counts, totals)
    for count, total in zip(counts, totals, strict=True):
        assert (
            surprise(count / total, total, pattern.share, pattern.correlation) <= pattern.worst * 1.25 + 1e-9
        )


@given(
    st.floats(0.001, 0.999), st.floats(0.01, 0.9), st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 1)
)
def test_the_farther_a_share_the_more_surprising(
    share: float, correlation: float, rows: int, one: float, other: float
) -> None:
    """Otherwise a limit could not be told as a number."""
    near, far = sorted((one, other))
    if near >= share:
        assert (
            surprise(near, rows, share, correlation) <= surprise(far, rows, share, correlation) * 1.001 + 1e-6
        )
