"""History as records: what a pipeline's producer would have sent, in the order in which it became known."""

import heapq
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import msgspec
from everloop_features import microseconds
from everloop_schemas.pipeline import FieldSpec, Pipeline

from everloop.errors import UsageError
from everloop.history.tables import Row, Table, cell

__all__ = ["HistoryFiles", "Kind", "Timed", "in_order"]

_ROWS_IN_MEMORY = 200_000
_NEVER_US = -(2**62)
"""Sorts a row without a readable time first: the contract refuses it, wherever it stands."""
_TIME = FieldSpec(type="timestamp")
_TEXT = FieldSpec(type="string")

Kind = Literal["observation", "label"]


class Timed(NamedTuple):
    """A record with its place in the order: when it was known, observations first, then as in the file."""

    known_us: int
    is_label: bool
    row: int
    value: bytes
    """The record's JSON."""


@dataclass(frozen=True, slots=True)
class HistoryFiles:
    """Where history lies: observations, and labels in a file of their own or in columns beside them.

    `label_time` names the column that says when the label of an observation's row happened.
    """

    observations: Table
    labels: Table | None = None
    label_time: str | None = None

    def check(self, pipeline: Pipeline) -> tuple[str, ...]:
        """Columns that are left out: the pipeline knows none such. Raises UsageError for a missing one."""
        observed, labelled = pipeline.observation.fields, pipeline.label.fields
        times = {"id", pipeline.observation.event_time}
        if self.label_time is None:
            unused = _unused(self.observations, {*times, *pipeline.partition_by}, observed)
        else:
            unused = _unused(self.observations, {*times, self.label_time}, {**observed, **labelled})
        if self.labels is not None:
            unused += _unused(self.labels, {"id", "event_time", *pipeline.partition_by}, labelled)
        return tuple(unused)

    def records(self, pipeline: Pipeline) -> Iterator[Timed]:
        """Every record, in no order."""
        keys = {name: pipeline.observation.fields[name] for name in pipeline.partition_by}
        labelled = {**keys, **pipeline.label.fields}
        observation = _Form(pipeline.observation.event_time, pipeline.observation.event_time)
        for number, row in enumerate(self.observations.rows()):
            yield observation.record(row, pipeline.observation.fields, number)
            if self.label_time is not None and _has_label(row, pipeline):
                beside = {name: value for name, value in row.items() if name != "known_at"}
                yield _Form("event_time", self.label_time, is_label=True).record(beside, labelled, number)
        for number, row in enumerate(self.labels.rows() if self.labels else ()):
            yield _Form("event_time", "event_time", is_label=True).record(row, labelled, number)


def _unused(table: Table, needed: set[str], fields: Mapping[str, FieldSpec]) -> list[str]:
    columns = table.columns()
    required = needed | {name for name, spec in fields.items() if not spec.nullable}
    missing = sorted(required - set(columns))
    if missing:
        raise UsageError(
            f"{table.path} has no column {missing[0]!r}.", f"Its columns are: {', '.join(columns)}."
        )
    return [f"{table.path.name}: {name}" for name in columns if name not in {*needed, *fields, "known_at"}]


def _has_label(row: Row, pipeline: Pipeline) -> bool:
    return any(row.get(name) not in (None, "") for name in pipeline.label.fields)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a row becomes a record: the name of its event time, and the column it stands in."""

    event_time: str
    column: str
    is_label: bool = False

    def record(self, row: Row, fields: Mapping[str, FieldSpec], number: int) -> Timed:
        """The record and its place in the order. `known_at` is the event time unless the row has it."""
        event_time = cell(row.get(self.column), _TIME)
        known_at = cell(row.get("known_at"), _TIME) or event_time
        record: dict[str, Any] = {
            "id": _text(row.get("id")),
            self.event_time: event_time,
            "known_at": known_at,
        }
        for name, spec in fields.items():
            value = cell(row.get(name), spec)
            if value is not None:
                record[name] = value
        return Timed(_known_us(known_at), self.is_label, number, msgspec.json.encode(record))


def _text(value: Any) -> Any:
    """An id is text, also where a table has it as a number."""
    return str(value) if isinstance(value, int) else value


def _known_us(moment: Any) -> int:
    try:
        return microseconds(datetime.fromisoformat(moment))
    except (TypeError, ValueError):
        return _NEVER_US


def in_order(records: Iterable[Timed], *, in_memory: int = _ROWS_IN_MEMORY) -> Iterator[Timed]:
    """Sort any number of records in bounded memory, by sorted runs on disk; equal input, equal order."""
    with ExitStack() as files:
        runs: list[Iterable[Timed]] = []
        run: list[Timed] = []
        for record in records:
            run.append(record)
            if len(run) == in_memory:
                runs.append(_spilled(sorted(run), files))
                run = []
        yield from heapq.merge(*runs, sorted(run))


def _spilled(run: list[Timed], files: ExitStack) -> Iterator[Timed]:
    folder = Path(files.enter_context(tempfile.TemporaryDirectory(prefix="everloop-backfill-")))
    path = folder / "run.ndjson"
    with path.open("wb") as file:
        for known_us, is_label, row, value in run:
            file.write(b"%d %d %d %s\n" % (known_us, is_label, row, value))
    return _read_back(files.enter_context(path.open("rb")))


def _read_back(file: IO[bytes]) -> Iterator[Timed]:
    for line in file:
        known_us, is_label, row, value = line[:-1].split(b" ", 3)
        yield Timed(int(known_us), is_label == b"1", int(row), value)
