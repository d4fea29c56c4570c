"""Every row of the file as records: what a producer would have sent, as `everloop publish` takes them."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from everloop_schemas.durations import parse_duration

from everloop.errors import UsageError
from everloop.first_steps.cells import read
from everloop.first_steps.columns import Column
from everloop.first_steps.plan import Plan

__all__ = ["Written", "write_records"]

Values = Sequence[Any]


@dataclass(slots=True)
class Written:
    """How many records were written, and rows that have no time."""

    observations: int = 0
    labels: int = 0
    without_time: int = 0


def write_records(plan: Plan, folder: Path) -> Written:
    """Write `observations.ndjson` and `labels.ndjson`; a row without a label's value has no label.

    An observation is known when it happened, its label `expected_after` later.
    """
    if plan.roles.time is None:
        raise UsageError(
            "No column says when a row happened.", "Name it with --time, or leave --records out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = Written()
    with ExitStack() as files:
        observations = files.enter_context((folder / "observations.ndjson").open("w", encoding="utf-8"))
        labels = files.enter_context((folder / "labels.ndjson").open("w", encoding="utf-8"))
        for observation, label in _records(plan, written):
            observations.write(json.dumps(observation, ensure_ascii=False) + "\n")
            if label is not None:
                labels.write(json.dumps(label, ensure_ascii=False) + "\n")
    return written


def _records(plan: Plan, written: Written) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    later = parse_duration(plan.expected_after)
    first = 0
    for frame in plan.sample.source.frames():
        for row in _rows(plan, frame, first):
            if row.happened is None:
                written.without_time += 1
                continue
            written.observations += 1
            written.labels += row.label is not None
            yield row.observation(plan), row.label_record(plan, later)
        first += len(frame)


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    happened: datetime | None
    fields: dict[str, Any]
    label: Any

    def observation(self, plan: Plan) -> dict[str, Any]:
        moment = _text(self.happened)
        return {"id": self.id, plan.event_time: moment, "known_at": moment, **self.fields}

    def label_record(self, plan: Plan, later: timedelta) -> dict[str, Any] | None:
        if self.label is None or self.happened is None or plan.roles.label is None:
            return None
        known = _text(self.happened + later)
        about = {"id": self.id, "event_time": known, "known_at": known, plan.key: self.fields[plan.key]}
        return {**about, plan.roles.label.name: self.label}


def _rows(plan: Plan, frame: pd.DataFrame, first: int) -> Iterator[_Row]:
    roles = plan.roles
    count = len(frame)
    columns = {column.name: _values(column, frame) for column in roles.fields}
    if roles.key is None:
        columns = {plan.key: [plan.name] * count, **columns}
    ids = (
        _values(roles.id, frame) if roles.id else [f"row-{number}" for number in range(first, first + count)]
    )
    times = _values(roles.time, frame) if roles.time else [None] * count
    labels = _values(roles.label, frame) if roles.label else [None] * count
    for number in range(count):
        fields = {name: _json(values[number]) for name, values in columns.items()}
        yield _Row(str(ids[number]), times[number], fields, _json(labels[number]))


def _values(column: Column, frame: pd.DataFrame) -> Values:
    """A column's values as Python's, None where one is missing."""
    values = read(frame[column.position], column.form)
    if column.type == "timestamp":
        return [None if pd.isna(value) else value.to_pydatetime(warn=False) for value in values]
    if column.type == "integer":
        return [None if math.isnan(value) else int(value) for value in values]
    return [None if pd.isna(value) else value for value in values]


def _json(value: Any) -> Any:
    return _text(value) if isinstance(value, datetime) else value


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
