"""Corrections: from its place in the log on, a corrected record has never been what it was."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

from everloop_features import Compiled, Record, derive, microseconds, replay
from everloop_features import compile as compile_features
from everloop_features.calculation import EPOCH
from everloop_schemas.pipeline import Pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

CALLS = {
    "count": "count({})",
    "values": "count({0}, {{}})",
    "sum": "sum({0}, {{}})",
    "mean": "mean({0}, {{}})",
    "share": "mean({1}, {{}})",
    "std": "std({0}, {{}})",
    "min": "min({0}, {{}})",
    "max": "max({0}, {{}})",
    "first": "first({0}, {{}})",
    "last": "last({0}, {{}})",
    "distinct": "distinct({0}, {{}})",
    "quantile": "quantile({0}, 0.5, {{}})",
    "ewma": "ewma({0}, {{}}, half_life='20s')",
    "since": "time_since({})",
}
SPANS = {"short": "window='64s'", "long": "window='320s'", "newest": "last_n=40"}
GROUPS = {
    "o": ("size", "big", "by=[shop, kind]"),
    "l": ("gain", "won", "by=[shop], over=labels"),
    "j": ("gain + size", "won and big", "by=[shop, kind], over=labels"),
}


def build(groups: str) -> Compiled:
    definition = {
        "pipeline": "shops",
        "partition_by": ["shop"],
        "observation": {
            "event_time": "at",
            "fields": {
                "shop": {"type": "category"},
                "kind": {"type": "category"},
                "big": {"type": "boolean", "nullable": True},
                "size": {"type": "number", "nullable": True},
            },
        },
        "label": {
            "type": "binary",
            "fields": {"gain": {"type": "number", "nullable": True}},
            "value": {"won": "gain > 0"},
        },
        "features": {
            f"{group}_{call}_{span}": text.format(*GROUPS[group][:2]).format(f"{words}, {GROUPS[group][2]}")
            if call not in ("count", "since")
            else text.format(f"{words}, {GROUPS[group][2]}")
            for group in groups
            for call, text in CALLS.items()
            for span, words in SPANS.items()
        },
    }
    result = compile_features(Pipeline.model_validate(definition))
    assert isinstance(result, Compiled), result
    return result


COMPILED = {groups: build(groups) for groups in ("o", "l", "j", "olj")}
FORGETFUL = {groups: build(groups) for groups in COMPILED}
for _one in FORGETFUL.values():
    _one.pending_us = 40_000_000


def moment(seconds: int) -> Any:
    return EPOCH + timedelta(seconds=1_400_000_000 + seconds)


def log_of(chance: Random) -> list[Record]:
    """Few ids, so that most records correct others; none is more than half a minute late."""
    log: list[Record] = []
    now = 0
    for _ in range(chance.randrange(2, 60)):
        now += chance.choice([0, 1, 2, 5, 11])
        record_id = f"r{chance.randrange(9)}"
        shop = "ab"[int(record_id[1:]) % 2]
        at, known = moment(now - chance.choice([0, 0, 1, 7, 30])), moment(now)
        kind = chance.choice(["observation", "observation", "label", "label", "label", "retraction"])
        number = chance.choice([None, 0.1, 0.2, 0.3, -1e9, chance.gauss(0, 1e3)])
        if kind == "observation":
            fields = {"shop": shop, "kind": chance.choice("xy"), "big": chance.random() < 0.5, "size": number}
            log.append(Record("observation", record_id, at, known, fields))
        elif kind == "label":
            log.append(Record("label", record_id, at, known, {"shop": shop, "gain": number}))
        else:
            log.append(Record("label", record_id, at, known, {"shop": shop}, retraction=True))
    return log


def in_force(log: list[Record]) -> list[Record]:
    """The log of one who knew from the beginning what the log's end knows.

    A label that was withdrawn with its observation stands behind the observation that came again.
    """
    kept: dict[int, Record] = {}
    labels: dict[str, int] = {}
    withdrawn: dict[str, Record | None] = {}
    for place, record in zip(range(0, 2 * len(log), 2), log, strict=True):
        if record.retraction:
            for other in [
                at for at, one in kept.items() if one.id == record.id and one.kind == "observation"
            ]:
                del kept[other]
            label = kept.pop(labels.pop(record.id, -1), None)
            withdrawn[record.id] = label or withdrawn.get(record.id)
        elif record.kind == "observation":
            kept[place] = record
            label = withdrawn.pop(record.id, None)
            if label is not None:
                kept[place + 1] = label
                labels[record.id] = place + 1
        elif record.id in withdrawn:
            withdrawn[record.id] = record
        else:
            kept.pop(labels.get(record.id, -1), None)
            kept[place] = record
            labels[record.id] = place
    return [kept[place] for place in sorted(kept)]


def as_if(compiled: Compiled, log: list[Record]) -> Iterator[tuple[int, list[Any]]]:
    for place, record in enumerate(log):
        if record.kind == "observation":
            overlay = compiled.new_state(1).begin()
            for _ in derive(compiled, enumerate(in_force(log[:place])), overlay):
                pass
            yield place, compiled.vector(record.fields, microseconds(record.event_time), overlay)


def bits(values: list[Any]) -> list[Any]:
    return [value.hex() if isinstance(value, float) else value for value in values]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(COMPILED)))
def test_from_a_correction_on_the_corrected_record_has_never_been(seed: int, groups: str) -> None:
    """A revised label or a retracted observation that still counted would train tomorrow's model on it."""
    compiled = COMPILED[groups]
    log = log_of(Random(seed))
    found = [(vector.offset, vector.values) for vector in replay(compiled, enumerate(log))]
    for (place, values), (expected_place, expected) in zip(found, as_if(compiled, log), strict=True):
        differences = {
            name: (one, other)
            for name, one, other in zip(compiled.names, bits(values), bits(expected), strict=True)
            if one != other
        }
        assert (place, differences) == (expected_place, {})


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(COMPILED)), st.data())
def test_corrections_do_not_depend_on_transactions_and_restarts(seed: int, groups: str, data: Any) -> None:
    """Stream, restart, replay: the same bits, also where some is forgotten, or an audit finds differences."""
    compiled = data.draw(st.sampled_from([COMPILED, FORGETFUL]))[groups]
    log = list(enumerate(log_of(Random(seed))))
    whole = list(replay(compiled, log))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=6)))
    state, topic, found = compiled.new_state(1), {}, []
    for first, last in pairwise([0, *cuts, len(log)]):
        overlay = state.begin()
        found += derive(compiled, log[first:last], overlay)
        topic |= dict(overlay.changes())
        if data.draw(st.booleans()):
            state.merge(overlay)
        else:
            state = compiled.new_state(1)
            for key, value in topic.items():
                if value is not None:
                    assert state.load(key, value)
    assert [bits(vector.values) for vector in found] == [bits(vector.values) for vector in whole]
