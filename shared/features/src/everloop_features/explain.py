"""Why a vector holds what it holds: the records behind each value, found by replaying the log."""

import ast
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, TypeVar

from everloop_schemas.pipeline import Pipeline

from everloop_features.calculation import microseconds
from everloop_features.history import PartitionReplay
from everloop_features.nodes import Value
from everloop_features.probes import Probe, probe
from everloop_features.records import LogRecord
from everloop_features.replay import derive

__all__ = ["AggregateSource", "Contribution", "ExplainedValue", "Explainer", "Explanation", "same_bits"]

_T = TypeVar("_T")

Entry = tuple[int, LogRecord]
"""A log record with its offset."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """One record of an aggregate's window; `value` is what the aggregate comes to for it alone."""

    offset: int
    kind: str
    id: str
    event_time: datetime
    known_at: datetime
    value: Value


@dataclass(frozen=True, slots=True)
class AggregateSource:
    """An aggregate in a feature: its value, how many records made it, and the newest of them, newest last.

    `found` of the `records` that the state counts were found one by one: fewer where a record came so late
    that the state had dropped its place, `None` where the language cannot count them.
    """

    expression: str
    value: Value
    records: int | None
    found: int
    newest: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class ExplainedValue:
    """One value of the vector: its expression, the observation's fields in it, and its aggregates."""

    feature: str
    expression: str
    value: Value
    fields: Mapping[str, Any]
    aggregates: tuple[AggregateSource, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Every value of one observation's vector, computed again, in the order of the pipeline's features."""

    values: tuple[ExplainedValue, ...]


@dataclass(slots=True)
class _Found:
    newest: deque[Contribution]
    count: int = 0


@dataclass(slots=True)
class _Label:
    """The label in force of an id, the aggregates that it is in, and those that it is not in yet."""

    entry: Entry
    noted: set[Probe]
    left: set[Probe]


class Explainer:
    """Give it the log of the observation's partition from its beginning, then ask `explain`.

    Memory: the evaluator's state, the records with the same keys that may still be joined or corrected, and
    `newest` records an aggregate; of these, one that was taken back leaves a gap.
    """

    def __init__(self, pipeline: Pipeline, target: LogRecord, *, newest: int) -> None:
        self._probes = probe(pipeline)
        self._compiled = self._probes.compiled
        self._target = target
        self._target_us = microseconds(target.event_time)
        self._label_fields = {*pipeline.partition_by, *pipeline.label.fields}
        self._replay = PartitionReplay(self._compiled)
        self._found = {
            one: _Found(deque(maxlen=newest if one.most is None else min(newest, one.most)))
            for one in self._probes.all
        }
        self._observations: dict[str, LogRecord] = {}
        self._noted: dict[str, list[tuple[Entry, set[Probe]]]] = {}
        self._labels: dict[str, _Label] = {}
        self._withdrawn: set[str] = set()
        self._clock_us = -(2**62)
        self._empty = self._alone([])

    def add(self, entries: Sequence[Entry]) -> None:
        """Take the next records of the log, all of them below the observation's own offset."""
        for entry in entries:
            if entry[1].retraction:
                self._retract(entry[1].id)
            elif entry[1].kind == "observation":
                self._observation(entry)
            else:
                self._label(entry)
            self._clock_us = max(self._clock_us, microseconds(entry[1].known_at))
        self._forget()
        self._replay.advance(entries)

    def explain(self) -> Explanation:
        """The vector after all records that were added."""
        values = self._named(self._replay.vector(self._target.fields, self._target_us))
        return Explanation(
            tuple(self._value(name, values) for name in self._compiled.names if name in self._probes.used)
        )

    def _value(self, feature: str, values: Mapping[str, Value]) -> ExplainedValue:
        text = self._probes.expressions[feature]
        known = self._target.fields
        words = {
            node.id for node in ast.walk(ast.parse(text.strip(), mode="eval")) if isinstance(node, ast.Name)
        }
        sources = tuple(self._source(one, values) for one in self._probes.used[feature])
        fields = {name: known[name] for name in known if name in words}
        return ExplainedValue(feature, text, values[feature], fields, sources)

    def _source(self, one: Probe, values: Mapping[str, Value]) -> AggregateSource:
        counted = values[one.counter] if one.counter else None
        records = None if counted is None else int(counted)
        found = self._found[one]
        count = found.count if one.most is None else min(found.count, one.most)
        return AggregateSource(one.expression, values[one.value], records, count, tuple(found.newest))

    def _observation(self, entry: Entry) -> None:
        record = entry[1]
        self._withdrawn.discard(record.id)
        noted = self._note(self._like(record.fields, record.fields, over_labels=False), entry)
        if noted:
            self._noted.setdefault(record.id, []).append((entry, noted))
        wanted = self._like(record.fields, record.fields.keys() - self._label_fields, over_labels=True)
        if not wanted:
            return
        self._observations[record.id] = record
        label = self._labels.get(record.id)
        if label is not None:
            label.noted |= self._note(label.left & wanted, label.entry, record, observation_last=True)
            label.left = set()

    def _label(self, entry: Entry) -> None:
        record = entry[1]
        before = self._labels.get(record.id)
        if before is not None and record.known_at < before.entry[1].known_at:
            return
        if before is not None:
            self._take_back(before.entry[0], self._labels.pop(record.id).noted)
        wanted = self._like(record.fields, self._label_fields, over_labels=True)
        if not wanted:
            return
        if record.id in self._withdrawn:
            self._labels[record.id] = _Label(entry, set(), wanted)
            return
        observation = self._observations.get(record.id)
        noted = self._note(wanted, entry, observation)
        self._labels[record.id] = _Label(entry, noted, wanted - noted if observation is None else set())

    def _retract(self, record_id: str) -> None:
        self._withdrawn.add(record_id)
        self._observations.pop(record_id, None)
        for entry, noted in self._noted.pop(record_id, ()):
            self._take_back(entry[0], noted)
        label = self._labels.get(record_id)
        if label is not None:
            self._take_back(label.entry[0], label.noted)
            label.noted, label.left = set(), label.noted | label.left

    def _take_back(self, offset: int, noted: set[Probe]) -> None:
        for found in map(self._found.__getitem__, noted):
            found.count -= 1
            left = [one for one in found.newest if one.offset != offset]
            found.newest.clear()
            found.newest.extend(left)

    def _like(self, fields: Mapping[str, Any], declared: Collection[str], *, over_labels: bool) -> set[Probe]:
        """The aggregates whose keys, as far as they are `declared`, are the observation's own."""
        known = self._target.fields
        return {
            one
            for one in self._found
            if one.over_labels == over_labels
            and all(fields.get(name) == known.get(name) for name in one.by if name in declared)
        }

    def _note(
        self,
        wanted: set[Probe],
        entry: Entry,
        observation: LogRecord | None = None,
        *,
        observation_last: bool = False,
    ) -> set[Probe]:
        """Evaluate the record alone (a label with its observation) and keep what it adds to `wanted`."""
        if not wanted:
            return set()
        offset, record = entry
        log = [one for one in (observation, record) if one is not None]
        values = self._alone(log[::-1] if observation_last else log)
        noted = {one for one in wanted if self._adds(one, values)}
        for one in noted:
            times = (record.event_time, record.known_at)
            self._found[one].newest.append(
                Contribution(offset, record.kind, record.id, *times, values[one.value])
            )
            self._found[one].count += 1
        return noted

    def _adds(self, one: Probe, values: Mapping[str, Value]) -> bool:
        if one.counter is None:
            return values[one.value] != self._empty[one.value]
        return bool(values[one.counter])

    def _alone(self, log: Sequence[LogRecord]) -> Mapping[str, Value]:
        """The observation's values if the log held these records alone."""
        overlay = self._compiled.new_state(version=1).begin()
        for _ in derive(self._compiled, enumerate(log), overlay):
            pass
        return self._named(self._compiled.vector(self._target.fields, self._target_us, overlay))

    def _named(self, values: Sequence[Value]) -> Mapping[str, Value]:
        return dict(zip(self._compiled.names, values, strict=True))

    def _forget(self) -> None:
        """Drop what no later record is joined with: what the evaluator has dropped."""
        oldest = self._clock_us - self._compiled.pending_us
        _drop_first(self._observations, lambda kept: microseconds(kept.known_at) < oldest)
        _drop_first(self._noted, lambda noted: microseconds(noted[-1][0][1].known_at) < oldest)
        _drop_first(self._labels, lambda kept: microseconds(kept.entry[1].known_at) < oldest)


def _drop_first(kept: dict[str, _T], is_old: Callable[[_T], bool]) -> None:
    """Drop from the front, in the order of arrival, up to the first that still counts."""
    for key in list(takewhile(lambda key: is_old(kept[key]), kept)):
        del kept[key]


def same_bits(left: Value, right: Value) -> bool:
    """Whether two values are the same: numbers to the last bit, and 1.0 is not 1 and not true."""
    if isinstance(left, float) and isinstance(right, float):
        return left.hex() == right.hex()
    return type(left) is type(right) and left == right
