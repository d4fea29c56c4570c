"""Nanoseconds per vector on the row path, and bytes of state per key.

    python bench/evaluator.py [--rounds 200]

Ten expressions and six windowed aggregates over two keys, as serving computes them for one request: from a
dict of JSON values and state in memory. The state is that of a key whose every pane is in use: the slowest
there is. Bytes per key are those of the state topic: with every pane in use, and for 5,000 keys with few
records each. Nanoseconds are of CPU time, the best of many short rounds, so that a busy machine shows
little.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

from everloop_features import Compiled, State, compile, derive, microseconds  # noqa: A004  # like re.compile
from everloop_features.records import Record
from everloop_schemas.pipeline import Pipeline

ROOT = Path(__file__).parents[1]
GOAL_NANOSECONDS = 10_000
GOAL_BYTES = 2_000
START = datetime(2013, 1, 1, tzinfo=UTC)
EXPRESSIONS = {
    "hour": "hour(event_time, tz='America/New_York')",
    "weekday": "weekday(event_time)",
    "route": "concat(origin, '-', dest)",
    "log_distance": "log1p(distance)",
    "is_windy": "wind > 20 and not is_null(gust)",
    "temperature": "coalesce(temperature, 60)",
    "spread": "clip(gust - wind, 0, 40)",
    "long": "distance > 1000 or dest in ['LAX', 'SFO']",
    "carrier": "upper(carrier)",
    "speed": "distance / (seats + 1) if seats > 100 else 0",
}
AGGREGATES = {
    "flights_1h": "count(window='1h', by=[origin])",
    "wind_1h": "mean(wind, window='1h', by=[origin])",
    "late_6h": "mean(late, window='6h', by=[origin], over=labels)",
    "delay_6h": "max(arrival_delay, window='6h', by=[origin], over=labels)",
    "late_7d": "mean(late, window='7d', by=[origin, carrier], over=labels)",
    "flights_7d": "count(window='7d', by=[origin, carrier])",
}
SIX_ON_ONE_KEY = {
    "count": "count(window='1h', by=[origin])",
    "mean": "mean(wind, window='1h', by=[origin])",
    "max": "max(wind, window='1h', by=[origin])",
    "std": "std(wind, window='1h', by=[origin])",
    "rainy": "mean(gust > 30, window='1d', by=[origin])",
    "daily": "count(window='1d', by=[origin])",
}
DEFINITION = {
    "pipeline": "flights",
    "partition_by": ["origin"],
    "observation": {
        "event_time": "departure",
        "fields": {
            "origin": {"type": "category"},
            "carrier": {"type": "category"},
            "dest": {"type": "category"},
            "distance": {"type": "number", "unit": "mi"},
            "seats": {"type": "number"},
            "temperature": {"type": "number", "unit": "degF", "nullable": True},
            "wind": {"type": "number", "unit": "mph"},
            "gust": {"type": "number", "unit": "mph", "nullable": True},
        },
    },
    "label": {
        "type": "binary",
        "fields": {"arrival_delay": {"type": "number", "unit": "min"}},
        "value": {"late": "arrival_delay > 15"},
    },
}


def compiled(features: dict[str, str]) -> Compiled:
    result = compile(Pipeline.model_validate({**DEFINITION, "features": features}))
    assert isinstance(result, Compiled), result
    return result


def observation(chance: random.Random, origin: str) -> dict:
    return {
        "origin": origin,
        "carrier": chance.choice(["UA", "AA", "DL"]),
        "dest": chance.choice(["LAX", "SFO", "ORD"]),
        "distance": float(chance.randrange(80, 5000)),
        "seats": float(chance.randrange(20, 400)),
        "temperature": chance.choice([None, chance.uniform(10, 90)]),
        "wind": chance.uniform(0, 40),
        "gust": chance.choice([None, chance.uniform(10, 60)]),
    }


def log(keys: int, rows: int, step: timedelta) -> list[tuple[int, Record]]:
    """Observations, each with the label of one before it."""
    chance, records = random.Random(1), []
    for number in range(rows):
        at = START + step * number
        origin = f"K{chance.randrange(keys)}"
        fields = observation(chance, origin)
        records.append(Record("observation", f"f{number}", at, at, fields))
        label = {"origin": origin, "arrival_delay": chance.gauss(5, 30)}
        records.append(Record("label", f"f{number}", at, at, label))
    return list(enumerate(records))


def filled(features: Compiled, records: list[tuple[int, Record]]) -> tuple[State, list[tuple[bytes, bytes]]]:
    """State after a log, and its groups as they are on the topic."""
    state = features.new_state(1)
    overlay = state.begin()
    for _ in derive(features, records, overlay):
        pass
    groups = [(key, value) for key, value in overlay.changes() if key.count(b"\x1f") >= 3 and value]
    state.merge(overlay)
    return state, groups


def load(state: State, groups: list[tuple[bytes, bytes]]) -> None:
    for key, value in groups:
        state.load(key, value)


def timed(features: Compiled, groups: list[tuple[bytes, bytes]]) -> float:
    began = time.process_time()
    load(features.new_state(1), groups)
    return time.process_time() - began


def restored(features: Compiled, groups: list[tuple[bytes, bytes]]) -> tuple[float, float]:
    """Keys a CPU second (the best of seven), and the bytes that a restored key takes in memory."""
    seconds = min(timed(features, groups) for _ in range(7))
    tracemalloc.start()
    state = features.new_state(1)
    load(state, groups)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sum(len(table) for table in state.tables) == len(groups)
    return len(groups) / seconds, taken / len(groups)


def nanoseconds(features: Compiled, state: State, rows: list[dict], at: int, rounds: int) -> float:
    """The best round's mean: what the code takes when nothing else has the core."""
    vector, best = features.vector, float("inf")
    for _ in range(rounds):
        began = time.process_time_ns()
        for fields in rows:
            vector(fields, at, state)
        best = min(best, (time.process_time_ns() - began) / len(rows))
    return best


def figure(name: str, ours: float, unit: str, goal: float | None) -> dict:
    absent = dict.fromkeys(("peer", "peer_version", "ratio"))
    met = None if goal is None else ours <= goal
    return {"name": name, "ours": round(ours), "unit": unit, **absent, "goal": goal, "met": met}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    chance = random.Random(2)
    rows = [observation(chance, "K0") for _ in range(1_000)]
    dense = log(1, 12_000, timedelta(minutes=1))
    at = microseconds(dense[-1][1].event_time) + 1
    figures = []
    for name, features, goal in (
        ("10 expressions", EXPRESSIONS, None),
        ("6 windowed aggregates, every pane in use", AGGREGATES, None),
        ("10 expressions and 6 windowed aggregates", {**EXPRESSIONS, **AGGREGATES}, GOAL_NANOSECONDS),
    ):
        built = compiled(features)
        state, _ = filled(built, dense)
        taken = nanoseconds(built, state, rows, at, rounds)
        figures.append(figure(f"evaluator: {name}", taken, "ns/vector", goal))
    six = compiled(SIX_ON_ONE_KEY)
    _, full = filled(six, dense)
    most = max(len(key) + len(value) for key, value in full)
    figures.append(figure("state: six aggregates, every pane in use", most, "bytes/key", GOAL_BYTES))
    _, usual = filled(six, log(5_000, 60_000, timedelta(seconds=20)))
    mean = statistics.fmean(len(key) + len(value) for key, value in usual)
    figures.append(figure("state: six aggregates, 5,000 keys, 60,000 rows", mean, "bytes/key", GOAL_BYTES))
    rate, resident = restored(six, usual)
    figures.append(figure("state: the same in memory, restored", resident, "bytes/key", GOAL_BYTES))
    figures.append(figure("state: restored from bytes", rate, "keys/CPU s", None))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    result = {"machine": f"{machine}, load {os.getloadavg()[1]:.1f}", "figures": figures}
    (ROOT / "bench/results/evaluator.json").write_text(json.dumps(result, indent=2) + "\n")
    for each in figures:
        goal = f" (goal {each['goal']:,})" if each["goal"] else ""
        print(f"{each['name']}: {each['ours']:,} {each['unit']}{goal}")


if __name__ == "__main__":
    sys.exit(main())
