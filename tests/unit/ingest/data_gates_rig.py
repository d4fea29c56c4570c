"""A pipeline, its profile, and hours of records as ingest's worker and judge handle them."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from everloop_ingest.application.intake import NewState
from everloop_ingest.application.tallying import Tallier
from everloop_ingest.domain.book import Book
from everloop_ingest.domain.contract import Checked, Contract
from everloop_ingest.domain.duplicates import DuplicateWindow, Recent
from everloop_ingest.domain.gauges import Gauges
from everloop_ingest.domain.rules import Rules
from everloop_ingest.domain.tally import Tally
from everloop_schemas.events import DataProfiled, Tallied
from everloop_schemas.pipeline import Pipeline, load
from everloop_trainer.domain.profile import blocks_of, field_profiles, late_share

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
TEXT = """
pipeline: pumps
partition_by: [site]
partitions: 2
observation:
  event_time: at
  replay_sources: [history]
  fields:
    site: {type: category}
    pressure: {type: number}
    heat: {type: number, nullable: true}
label:
  type: binary
  fields: {failed: {type: boolean}}
  value: {fails: failed}
"""


def contract(quality: str = "") -> Contract:
    pipeline = load(TEXT + quality)
    assert isinstance(pipeline, Pipeline), pipeline
    return Contract(pipeline)


def row(number: int, at: datetime, chance: random.Random, **changes: Any) -> dict[str, Any]:
    text = at.isoformat().replace("+00:00", "Z")
    return {
        "id": f"r{number}",
        "at": text,
        "known_at": text,
        "site": chance.choice(("north", "south")),
        "pressure": chance.gauss(20, 3),
        "heat": chance.gauss(60, 5),
        **changes,
    }


def hour(number: int, rows: int = 60, **changes: Any) -> list[dict[str, Any]]:
    """The rows of hour `number` after the beginning."""
    chance = random.Random(number)
    step = timedelta(hours=1) / max(rows, 1)
    begin = BEGIN + timedelta(hours=number)
    return [row(number * 10_000 + i, begin + i * step, chance, **changes) for i in range(rows)]


def checked(found: Contract, rows: Iterable[dict[str, Any]]) -> list[Checked]:
    outcomes = [
        found.check("observation", each, source="history", now=BEGIN + timedelta(days=400)) for each in rows
    ]
    assert all(isinstance(each, Checked) for each in outcomes), outcomes
    return [each for each in outcomes if isinstance(each, Checked)]


def profile(found: Contract, rows: Sequence[dict[str, Any]], run: str = "run-1") -> DataProfiled:
    """What a training of these rows publishes."""
    times = np.array([(datetime.fromisoformat(each["at"]) - EPOCH).total_seconds() for each in rows])
    micros = (times * 1e6).astype(np.int64)
    blocks = blocks_of(micros, 3_600_000_000)
    late_seconds, late = late_share(blocks, micros, micros)
    return DataProfiled(
        run_id=run,
        pipeline="pumps",
        pipeline_version=1,
        dataset_sha256="0" * 64,
        window_seconds=3600,
        windows=len(blocks.window_rows),
        days=len(blocks.day_rows),
        observations=len(rows),
        labels=0,
        first_event_time=BEGIN,
        last_event_time=BEGIN,
        late_seconds=late_seconds,
        late=late,
        fields=field_profiles("observation", found.definition.observation.fields, rows, blocks),
        profiled_at=BEGIN,
    )


def tallied(
    found: Contract,
    learned: DataProfiled | None,
    rows: Sequence[dict[str, Any]],
    *,
    known_at: datetime | None = None,
    announces: bool = False,
    **more: Any,
) -> list[Tallied]:
    """The notes of one batch of the worker; `known_at` is the pipeline time before it."""
    records = checked(found, rows)
    latest = max([each.known_at for each in records] + ([known_at] if known_at else []), default=BEGIN)
    state = NewState(
        Tally(len(records), 0, latest),
        Recent(DuplicateWindow(1)),
        checked=records,
        announces=announces,
        **more,
    )
    notes = list(Tallier(0).tallied(found, Gauges(found.definition, learned), state))
    if announces:
        notes[-1] = notes[-1].model_copy(update={"arrived": [len(records), 0]})
    return notes


class Rig:
    """A book with its rules."""

    def __init__(self, quality: str = "", *, learned_hours: int = 0) -> None:
        self.contract = contract(quality)
        past = [each for number in range(-learned_hours, 0) for each in hour(number)]
        self.profile = profile(self.contract, past) if past else None
        self.rules = Rules(self.contract.definition, self.profile)
        self.book = Book("pumps")

    def feed(self, rows: Sequence[dict[str, Any]], **more: Any) -> None:
        for each in tallied(self.contract, self.profile, rows, **more):
            self.book.add(each, self.rules, BEGIN)

    def feed_counts(self, number: int, rows: int, **learned: int) -> None:
        """An hour of which only the number of rows matters."""
        start = BEGIN + timedelta(hours=number)
        self.book.add(
            Tallied(partition=0, window_start=start, known_at=start, observations=rows, learned=learned),
            self.rules,
            BEGIN,
        )

    @property
    def broken(self) -> dict[int, list[str]]:
        """Hours after the beginning with a broken gate, and which."""
        begin = int(BEGIN.timestamp())
        return {
            (start - begin) // 3600: [gate.gate for gate in window.broken]
            for start, window in self.book.windows.items()
            if window.state == "broken"
        }

    @property
    def held(self) -> list[str]:
        return [gate.gate for gate in self.book.standing.held] if self.book.standing else []
