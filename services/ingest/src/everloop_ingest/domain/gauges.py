"""What is counted of a batch's records, column by column: for the learned and the declared data gates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from everloop_schemas.events import DataProfiled, FieldProfile
from everloop_schemas.pipeline import Expectation, FieldSpec, Pipeline, Quality
from msgspec.structs import astuple

from everloop_ingest.domain.contract import Checked, Kind

__all__ = ["LATE", "Counted", "Gauges", "gate_name"]

LATE: Final = "observation:late"
"""The learned measure of observations that were known later than 99% of the training's."""
_MOST_EXAMPLES: Final = 5
_LONGEST_EXAMPLE: Final = 100


def gate_name(wanted: Expectation) -> str:
    """An expectation as one word: another range is another gate.

    Example:
        >>> gate_name(Expectation(expect="between", field="wind", min=0.0, max=60.0))
        'between(wind, min=0, max=60)'
    """
    parts = [wanted.field] if wanted.field else []
    for name in ("min", "max"):
        limit = getattr(wanted, name)
        parts += [f"{name}={limit:g}"] if limit is not None else []
    parts += [f"{len(wanted.values)} values"] if wanted.values else []
    parts += [f"within {wanted.within}"] if wanted.within else []
    return f"{wanted.expect}({', '.join(parts)})"


@dataclass(slots=True)
class Counted:
    """Rows by measure, those without a row left out; and values that training never saw, by field."""

    learned: dict[str, int] = field(default_factory=dict)
    declared: dict[str, int] = field(default_factory=dict)
    unseen: dict[str, list[str]] = field(default_factory=dict)


class Gauges:
    """The counters of one pipeline version under one profile."""

    def __init__(self, pipeline: Pipeline, profile: DataProfiled | None) -> None:
        quality = pipeline.quality or Quality()
        used = profile if quality.learned else None
        self.profile = None if used is None else used.run_id
        self._late = None if used is None else timedelta(seconds=used.late_seconds)
        self._fields: dict[Kind, list[_FieldGauge]] = {
            "observation": _gauges("observation", pipeline.observation.fields, quality, used),
            "label": _gauges("label", pipeline.label.fields, quality, used),
        }
        self._fresh = [each for each in quality.expect if each.expect == "fresh"]

    def count(self, kind: Kind, records: Sequence[Checked]) -> Counted:
        """Count records of one kind."""
        counted = Counted()
        if not records:
            return counted
        if not self._fields[kind]:
            self._count_late(records, counted)
            return counted
        names = type(records[0].fields).__struct_encode_fields__
        columns = dict(zip(names, zip(*(astuple(each.fields) for each in records), strict=True), strict=True))
        for gauge in self._fields[kind]:
            if gauge.name in columns:
                gauge.count(columns[gauge.name], counted)
        self._count_late(records, counted)
        return counted

    def _count_late(self, records: Sequence[Checked], counted: Counted) -> None:
        if records[0].kind == "label" or (self._late is None and not self._fresh):
            return
        ages = [each.known_at - each.event_time for each in records]
        if self._late is not None:
            _note(counted.learned, LATE, sum(map(self._late.__lt__, ages)))
        for wanted in self._fresh:
            assert wanted.within is not None
            _note(counted.declared, gate_name(wanted), sum(map(wanted.within.__lt__, ages)))


def _gauges(
    kind: Kind, fields: Mapping[str, FieldSpec], quality: Quality, profile: DataProfiled | None
) -> list["_FieldGauge"]:
    found = [
        _FieldGauge(name, spec, _profiled(kind, name, profile), quality) for name, spec in fields.items()
    ]
    return [gauge for gauge in found if gauge.counts_anything]


def _profiled(kind: Kind, name: str, profile: DataProfiled | None) -> FieldProfile | None:
    found = None if profile is None else profile.fields.get(name)
    return found if found is not None and found.kind == kind else None


def _note(counts: dict[str, int], name: str, rows: int) -> None:
    if rows:
        counts[name] = counts.get(name, 0) + rows


class _FieldGauge:
    """What is counted of one field."""

    def __init__(self, name: str, spec: FieldSpec, profile: FieldProfile | None, quality: Quality) -> None:
        measures = {} if profile is None else profile.measures
        self.name = name
        self._nullable = spec.nullable
        self._low = profile.low if profile and "below" in measures else None
        self._high = profile.high if profile and "above" in measures else None
        self._null = f"{name}:null" if "null" in measures else None
        self._true = f"{name}:true" if "true" in measures else None
        tracked = (each.removeprefix("is:") for each in measures if each.startswith("is:"))
        self._tracked = {value: f"{name}:is:{value}" for value in tracked} if spec.type == "category" else {}
        self._known = frozenset(profile.known or ()) if profile and "unseen" in measures else None
        self._declared = [each for each in quality.expect if each.field == name]
        self.counts_anything = bool(measures or self._declared)

    def count(self, column: Sequence[Any], counted: Counted) -> None:
        """Count one batch's values."""
        nulls = column.count(None) if self._nullable else 0
        present = [value for value in column if value is not None] if nulls else column
        learned = counted.learned
        if self._null:
            _note(learned, self._null, nulls)
        if self._low is not None:
            _note(learned, f"{self.name}:below", sum(map(self._low.__gt__, present)))
        if self._high is not None:
            _note(learned, f"{self.name}:above", sum(map(self._high.__lt__, present)))
        if self._true:
            _note(learned, self._true, column.count(True))
        if self._tracked or self._known is not None:
            self._count_categories(Counter(present), counted)
        for wanted in self._declared:
            _note(counted.declared, gate_name(wanted), _failing(wanted, present, nulls))

    def _count_categories(self, values: Mapping[str, int], counted: Counted) -> None:
        for value, name in self._tracked.items():
            _note(counted.learned, name, values.get(value, 0))
        if self._known is None:
            return
        new = [value for value in values if value not in self._known]
        if new:
            _note(counted.learned, f"{self.name}:unseen", sum(values[value] for value in new))
            counted.unseen[self.name] = [value[:_LONGEST_EXAMPLE] for value in new[:_MOST_EXAMPLES]]


def _failing(wanted: Expectation, present: Sequence[Any], nulls: int) -> int:
    """Rows that an expectation about a field does not take; a null is no violation of a range or a set."""
    if wanted.expect == "not_null":
        return nulls
    if wanted.expect == "in_set":
        allowed = frozenset(wanted.values or ())
        return sum(rows for value, rows in Counter(present).items() if value not in allowed)
    below = 0 if wanted.min is None else sum(map(float(wanted.min).__gt__, present))
    above = 0 if wanted.max is None else sum(map(float(wanted.max).__lt__, present))
    return below + above
