"""The evaluator gives the same bits however it is fed: in one go, in batches, restored, in serving."""

import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import msgspec
from everloop_features import Compiled, compile, derive, replay
from everloop_features.calculation import EPOCH
from everloop_schemas.pipeline import Pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

SECOND = 1_000_000


@dataclass(frozen=True)
class Entry:
    """A log record with times in seconds."""

    kind: str
    id: str
    event_seconds: float
    known_seconds: float
    fields: dict[str, Any]

    @property
    def event_time(self):
        return EPOCH + timedelta(seconds=self.event_seconds)

    @property
    def known_at(self):
        return EPOCH + timedelta(seconds=self.known_seconds)


SCALARS = (
    "size",
    "size * 3 - other / 7",
    "log1p(abs(size)) ** 2",
    "coalesce(size, other, 1)",
    "hour(event_time, tz='America/New_York')",
    "big and not is_null(size)",
    "concat(shop, '/', kind)",
    "size if big else other",
)
WINDOWS = ("40s", "5m", "1h", "7d")
GROUPS = ("[shop]", "[shop, kind]", "[kind, number, shop]", "[big, shop]")
OVER_OBSERVATIONS = (
    "count({})", "count(size, {})", "sum(size, {})", "mean(size + other, {})", "max(size, {})", "min(other, {})",
    "last(kind, {})", "last(size, {})", "mean(big, {})", "sum(big, {})",
)  # fmt: skip
OVER_LABELS = (
    "count({})", "mean(won, {})", "sum(gain * 2, {})", "max(gain, {})", "last(won, {})", "mean(gain + size, {})",
    "last(concat(kind, shop), {})",
)  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(SCALARS))
    words = f"window='{draw(st.sampled_from(WINDOWS))}', by={draw(st.sampled_from(GROUPS))}"
    if draw(st.booleans()):
        call = draw(st.sampled_from(OVER_OBSERVATIONS)).format(words)
    else:
        call = draw(st.sampled_from(OVER_LABELS)).format(words + ", over=labels")
    return call.replace("(, ", "(")


@st.composite
def pipelines(draw: st.DrawFn) -> Compiled:
    features = draw(st.lists(expressions(), min_size=1, max_size=8, unique=True))
    return build({f"f{index}": text for index, text in enumerate(features)})


def build(features: dict[str, str]) -> Compiled:
    definition = {
        "pipeline": "shops",
        "partition_by": ["shop"],
        "observation": {
            "event_time": "at",
            "fields": {
                "shop": {"type": "category", "nullable": True},
                "kind": {"type": "category", "nullable": True},
                "number": {"type": "integer"},
                "big": {"type": "boolean", "nullable": True},
                "size": {"type": "number", "nullable": True},
                "other": {"type": "number"},
            },
        },
        "label": {
            "type": "binary",
            "fields": {"gain": {"type": "number", "nullable": True}},
            "value": {"won": "gain > 0"},
            "expected_after": "1h",
        },
        "features": features,
    }
    result = compile(Pipeline.model_validate(definition))
    assert isinstance(result, Compiled), result
    return result


numbers = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.floats(-1e6, 1e6),
    st.floats(allow_nan=False, allow_infinity=False),
)
steps = st.one_of(
    st.floats(0, 100), st.floats(-2_000, 4_000), st.integers(86_400, 9 * 86_400), st.integers(-90_000, 0)
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Records in log order; event times jump back and far ahead, labels come early, late, twice and never."""
    entries, now = [], 1_400_000_000.0
    for index in range(draw(st.integers(1, 40))):
        now += draw(steps)
        shop = draw(st.sampled_from(["a", "b", None]))
        known = now + draw(st.floats(0, 50))
        if draw(st.integers(0, 2)):
            fields = {
                "shop": shop,
                "kind": draw(st.sampled_from(["x", "y", "z\x1f", None])),
                "number": draw(st.integers(-3, 3)),
                "big": draw(st.sampled_from([True, False, None])),
                "size": draw(numbers),
                "other": draw(st.floats(-1e3, 1e3)),
            }
            entries.append(Entry("observation", f"r{draw(st.integers(0, index))}", now, known, fields))
        else:
            fields = {"shop": shop, "gain": draw(numbers)}
            entries.append(Entry("label", f"r{draw(st.integers(0, index + 3))}", now, known, fields))
    return entries


def bits(values: Sequence[Any]) -> list[Any]:
    """Values that are equal only when their bits are."""
    return [struct.pack("d", value) if isinstance(value, float) else (type(value), value) for value in values]


def one_shot(compiled: Compiled, log: list[Entry]) -> list[list[Any]]:
    return [bits(vector.values) for vector in replay(compiled, enumerate(log))]


def cut(log: list[Entry], cuts: list[int]) -> list[list[tuple[int, Entry]]]:
    edges = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    numbered = list(enumerate(log))
    return [numbered[start:end] for start, end in zip(edges, edges[1:], strict=False)]


@settings(max_examples=150, deadline=None)
@given(pipelines(), logs(), st.lists(st.integers(0, 50), max_size=5), st.sets(st.integers(0, 5)))
def test_batches_and_restarts_do_not_show(
    compiled: Compiled, log: list[Entry], cuts: list[int], restarts: set[int]
) -> None:
    """A rebalance or a crash must not change what a model is trained on."""
    state, topic, vectors = compiled.new_state(7), {}, []
    for number, batch in enumerate(cut(log, cuts)):
        abandoned = state.begin()
        list(derive(compiled, batch, abandoned))
        overlay = state.begin()
        vectors += [bits(vector.values) for vector in derive(compiled, batch, overlay)]
        assert overlay.changes() == abandoned.changes()
        for key, value in overlay.changes():
            topic.pop(key, None)
            if value is not None:
                topic[key] = value
        state.merge(overlay)
        if number in restarts:
            state = compiled.new_state(7)
            for key, value in topic.items():
                assert state.load(key, value)
    assert vectors == one_shot(compiled, log)


@settings(max_examples=100, deadline=None)
@given(pipelines(), logs(), st.lists(st.integers(0, 50), max_size=5))
def test_serving_sees_what_the_stream_sees(compiled: Compiled, log: list[Entry], cuts: list[int]) -> None:
    """A prediction is made from the same bits that the model was trained on."""
    stream, serving, served = compiled.new_state(2), compiled.new_state(2), []
    for batch in cut(log, [*cuts, *range(len(log))]):
        for _, entry in batch:
            if entry.kind == "observation":
                event_us = round(entry.event_seconds * SECOND)
                moment = (entry.event_time - EPOCH) // timedelta(microseconds=1)
                assert abs(moment - event_us) <= 1
                fields = msgspec.json.decode(msgspec.json.encode(entry.fields))
                served.append(bits(compiled.vector(fields, moment, serving)))
        overlay = stream.begin()
        list(derive(compiled, batch, overlay))
        for key, value in overlay.changes():
            serving.load(key, value)
            assert not serving.load(key.replace(b"v2", b"v1", 1), None)
        stream.merge(overlay)
    assert served == one_shot(compiled, log)


@settings(max_examples=100, deadline=None)
@given(pipelines(), logs(), logs(), st.integers(0, 40))
def test_what_comes_later_changes_nothing_before(
    compiled: Compiled, log: list[Entry], later: list[Entry], at: int
) -> None:
    """A label must never reach a vector that was computed before it was known: the model would look too good."""
    kept = log[: at % (len(log) + 1)]
    before = sum(entry.kind == "observation" for entry in kept)
    assert one_shot(compiled, kept + later)[:before] == one_shot(compiled, log)[:before]


@settings(max_examples=100, deadline=None)
@given(logs(), st.sampled_from([40, 300, 3_600, 604_800]))
def test_windows_are_exact_but_for_one_pane(log: list[Entry], window_seconds: int) -> None:
    """The documented error is the whole error: at most one pane at the old end, none with records in order."""
    words = f"window='{window_seconds}s', by=[shop]"
    calls = (f"count({words})", f"sum(other, {words})", f"max(other, {words})", f"last(other, {words})")
    compiled = build({f"f{index}": call for index, call in enumerate(calls)})
    log = [
        replace(entry, event_seconds=at)
        for entry, at in zip(log, sorted(e.event_seconds for e in log), strict=True)
    ]
    pane = window_seconds / 32
    vectors = list(replay(compiled, enumerate(log)))
    for vector in vectors:
        now, shop = log[vector.offset].event_seconds, log[vector.offset].fields["shop"]
        if shop is None:
            assert vector.values == [None] * 4
            continue
        seen = [e for e in log[: vector.offset] if e.kind == "observation" and e.fields["shop"] == shop]
        start = (now // pane - 31) * pane
        assert now - window_seconds <= start + 1e-3 <= now - window_seconds + pane + 2e-3
        inside = [e.fields["other"] for e in seen if e.event_seconds >= start]
        assert vector.values[0] == len(inside)
        assert abs(vector.values[1] - sum(inside)) <= 1e-6
        assert vector.values[2] == max(inside, default=None)
        exact = [e.fields["other"] for e in seen if e.event_seconds > now - window_seconds + 1e-5]
        loose = [e.fields["other"] for e in seen if e.event_seconds > now - window_seconds - 1e-5]
        assert vector.values[3] in (exact[-1] if exact else None, loose[-1] if loose else None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=60))
def test_late_records_count_in_the_pane_they_belong_to(seconds: list[int]) -> None:
    """Records that arrive out of order, up to a whole window late, count as if they had come in time."""
    compiled = build({"x": "count(window='96s', by=[shop])"})  # panes of 3 seconds
    start = 1_400_000_001 - 1_400_000_001 % 3
    log = [Entry("observation", f"r{n}", start + at, 0, {"shop": "a"}) for n, at in enumerate(seconds)]
    for vector in replay(compiled, enumerate(log)):
        earlier = sorted(at // 3 for at in seconds[: vector.offset])
        now = seconds[vector.offset] // 3
        newest = earlier[-1] if earlier else now
        first = max(now - 31, newest - 63)
        expected = bisect_right(earlier, now) - bisect_right(earlier, first - 1)
        if newest - 63 <= now - 31:  # not more than a window behind: nothing it needs is gone
            assert vector.values == [expected]
        else:
            assert vector.values[0] <= expected
