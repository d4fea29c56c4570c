"""Every aggregate against its definition, record by record, within the error that the reference states."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from random import Random
from typing import Any

from everloop_features import Compiled, Record, replay
from everloop_features import compile as compile_features
from everloop_features.calculation import EPOCH
from everloop_schemas.pipeline import Pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

START = 1_400_000_000 // 96 * 96
PANE = 3
WINDOW = 32 * PANE
NEWEST = 5
HALF_LIFE = 20
SPANS = {"w": f"window='{WINDOW}s'", "n": f"last_n={NEWEST}"}
WHERES = {"": "", "where": ", where=big"}
CALLS = {
    "count": "count({})",
    "values": "count(size, {})",
    "sum": "sum(size, {})",
    "mean": "mean(size, {})",
    "share": "mean(big, {})",
    "std": "std(size, {})",
    "min": "min(size, {})",
    "max": "max(size, {})",
    "first": "first(size, {})",
    "last": "last(size, {})",
    "distinct": "distinct(kind, {})",
    "ratio": "ratio(size, other, {})",
    "ratio_of": "ratio(big, {})",
    "quantile": "quantile(size, 0.75, {})",
    "lowest": "quantile(size, 0, {})",
    "ewma": f"ewma(size, {{}}, half_life='{HALF_LIFE}s')",
    "time_since": "time_since({}, unit='min')",
    "time_since_value": "time_since(size, {})",
}


def build(features: dict[str, str]) -> Compiled:
    definition = {
        "pipeline": "shops",
        "partition_by": ["shop"],
        "observation": {
            "event_time": "at",
            "fields": {
                "shop": {"type": "category"},
                "kind": {"type": "category", "nullable": True},
                "big": {"type": "boolean", "nullable": True},
                "size": {"type": "number", "nullable": True},
                "other": {"type": "number", "nullable": True},
            },
        },
        "label": {"type": "binary", "fields": {"gain": {"type": "number"}}, "value": {"won": "gain > 0"}},
        "features": features,
    }
    result = compile_features(Pipeline.model_validate(definition))
    assert isinstance(result, Compiled), result
    return result


COMPILED = build(
    {
        f"{call}_{span}_{where}": text.format(f"{words}, by=[shop]{condition}").replace("(, ", "(")
        for call, text in CALLS.items()
        for span, words in SPANS.items()
        for where, condition in WHERES.items()
    }
)


@dataclass(frozen=True)
class Seen:
    """A record that a vector may see: its seconds and fields."""

    at: int
    fields: dict[str, Any]


def moment(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=START + seconds)


def records(chance: Random) -> list[Seen]:
    """In log order; none is a whole window older than the newest before it."""
    log, newest = [], 0
    for _ in range(chance.randrange(1, 90)):
        at = max(0, newest - WINDOW + PANE, newest + chance.choice([0, 1, 2, 3, 40, 150, -1, -2, -7, -60]))
        newest = max(newest, at)
        size = chance.choice([None, 0.0, -1.5, 1e-3, chance.gauss(0, 1e3), chance.gauss(1e6, 1)])
        fields = {
            "shop": chance.choice(["a", "a", "a", "b"]),
            "kind": chance.choice([None, "x", "y", str(chance.randrange(40))]),
            "big": chance.choice([True, True, False, None]),
            "size": size,
            "other": chance.choice([None, 1.0, chance.uniform(1, 9)]),
        }
        log.append(Seen(at, fields))
    return log


def in_window(seen: list[Seen], now: int) -> list[Seen]:
    pane = (START + now) // PANE
    return [each for each in seen if pane - 32 < (START + each.at) // PANE <= pane]


def newest_records(seen: list[Seen], now: int) -> list[Seen]:
    return [each for each in sorted(seen, key=lambda each: each.at)[-NEWEST:] if each.at <= now]


def window_last(seen: list[Seen], now: int) -> Seen | None:
    """The newest of each pane, then the newest of these that is not later than now."""
    newest: dict[int, Seen] = {}
    for each in seen:
        pane = (START + each.at) // PANE
        if pane not in newest or each.at >= newest[pane].at:
            newest[pane] = each
    known = [each for each in newest.values() if now - WINDOW < each.at <= now]
    return max(known, key=lambda each: each.at, default=None)


def window_first(seen: list[Seen], now: int) -> Seen | None:
    oldest = min(in_window(seen, now), key=lambda each: each.at, default=None)
    return oldest if oldest and oldest.at <= now else None


@dataclass(frozen=True)
class Expectation:
    """A definition's value, and by how much the evaluator may miss it."""

    value: float | str | None
    error: float = 0.0

    def holds(self, got: Any) -> bool:
        if self.value is None or got is None or isinstance(self.value, str):
            return got == self.value
        return abs(got - self.value) <= self.error


def rounding(values: Sequence[float]) -> float:
    return 1e-9 * max(map(abs, values), default=0.0) + 1e-12


def of_sizes(values: list[float]) -> dict[str, Expectation]:
    exact = [Fraction(value) for value in values]
    mean = sum(exact) / len(exact) if exact else None
    squares = sum((value - mean) ** 2 for value in exact) if len(exact) > 1 else None
    std = None if squares is None else math.sqrt(squares / (len(exact) - 1))
    return {
        "values": Expectation(len(values)),
        "sum": Expectation(float(sum(exact)), rounding(values)),
        "mean": Expectation(None if mean is None else float(mean), rounding(values)),
        "std": Expectation(std, rounding(values)),
        "min": Expectation(min(values, default=None)),
        "max": Expectation(max(values, default=None)),
    }


def quantile(values: list[float], share: float, relative: float) -> Expectation:
    if not values:
        return Expectation(None)
    value = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    return Expectation(value, relative * abs(value))


def ewma(seen: list[Seen]) -> Expectation:
    known = [each for each in seen if each.fields["size"] is not None]
    if not known:
        return Expectation(None)
    newest = max(each.at for each in known)
    weights = [2.0 ** ((each.at - newest) / HALF_LIFE) for each in known]
    sizes = [each.fields["size"] for each in known]
    mean = sum(Fraction(size) * Fraction(weight) for size, weight in zip(sizes, weights, strict=True))
    return Expectation(float(mean / sum(map(Fraction, weights))), rounding(sizes))


def ratio(seen: list[Seen]) -> Expectation:
    both = [(each.fields["size"], each.fields["other"]) for each in seen]
    both = [(size, other) for size, other in both if size is not None and other is not None]
    below = sum(Fraction(other) for _, other in both)
    above = sum(Fraction(size) for size, _ in both)
    return Expectation(float(above / below) if below else None, rounding([size for size, _ in both]))


def expected(span: str, seen: list[Seen], now: int) -> dict[str, Expectation]:
    look = in_window if span == "w" else newest_records
    inside = look(seen, now)
    sizes = [each.fields["size"] for each in inside if each.fields["size"] is not None]
    bigs = [each.fields["big"] for each in inside if each.fields["big"] is not None]
    valued = [each for each in seen if each.fields["size"] is not None]
    valued_inside = [each for each in inside if each.fields["size"] is not None]
    if span == "w":
        first, last = window_first(valued, now), window_last(valued, now)
        newest, newest_value = window_last(seen, now), last
    else:
        first, last = (valued_inside[index] if valued_inside else None for index in (0, -1))
        newest, newest_value = inside[-1] if inside else None, last
    return {
        **of_sizes(sizes),
        "count": Expectation(len(inside)),
        "share": Expectation(sum(bigs) / len(bigs) if bigs else None),
        "first": Expectation(first and first.fields["size"]),
        "last": Expectation(last and last.fields["size"]),
        "distinct": Expectation(len({each.fields["kind"] for each in inside} - {None})),
        "ratio": ratio(inside),
        "ratio_of": Expectation(sum(bigs) / len(inside) if inside else None),
        "quantile": quantile(sizes, 0.75, 1 / 32 if span == "w" else 0.0),
        "lowest": quantile(sizes, 0, 1 / 32 if span == "w" else 0.0),
        "ewma": ewma(inside),
        "time_since": Expectation(newest and (now - newest.at) / 60),
        "time_since_value": Expectation(newest_value and float(now - newest_value.at)),
    }


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_aggregate_is_what_its_definition_says(seed: int) -> None:
    """Late records or not: what the reference says of an aggregate's error is all the error there is."""
    log = records(Random(seed))
    entries = [
        Record("observation", f"r{n}", moment(each.at), moment(each.at), each.fields)
        for n, each in enumerate(log)
    ]
    for vector in replay(COMPILED, enumerate(entries)):
        mine = log[vector.offset]
        before = [each for each in log[: vector.offset] if each.fields["shop"] == mine.fields["shop"]]
        got = dict(zip(COMPILED.names, vector.values, strict=True))
        for span in SPANS:
            for where in WHERES:
                seen = [each for each in before if not where or each.fields["big"] is True]
                for call, expectation in expected(span, seen, mine.at).items():
                    value = got[f"{call}_{span}_{where}"]
                    assert expectation.holds(value), (call, span, where, vector.offset, value, expectation)
