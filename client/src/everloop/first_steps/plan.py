"""The pipeline that a sample suggests: its label's value, its features, when it trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from everloop.first_steps.cells import Series, read
from everloop.first_steps.columns import Column, columns_of
from everloop.first_steps.names import NameBook, words_of
from everloop.first_steps.roles import Roles, Wishes, guess_roles
from everloop.first_steps.sample import Sample

__all__ = ["SERIES", "LabelValue", "Plan", "Window", "plan_of"]

SERIES = "series"
"""The field that stands in for a key where no column groups the rows."""
_NO_LABEL = "outcome"
_NO_TIME = "happened_at"
_WINDOWS = {"1h": 3600, "6h": 21_600, "1d": 86_400, "7d": 604_800, "28d": 2_419_200, "90d": 7_776_000}
_RECORDS_PER_WINDOW = 10
_LONG_HISTORY = timedelta(days=60)
_USUAL_ROWS = 5000
_USUAL_LEAST = 500
_FOLLOWS = 0.8


@dataclass(frozen=True, slots=True)
class LabelValue:
    """What a model learns: `type` of the label, the value's name and expression, and why."""

    type: str
    name: str
    expression: str
    why: str


@dataclass(frozen=True, slots=True)
class Window:
    """The windows of the suggested aggregates, and how many records of a key the shorter one holds."""

    short: str
    long: str
    records: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the pipeline file says."""

    name: str
    sample: Sample
    roles: Roles
    event_time: str
    key: str
    """The field that the log is partitioned by."""
    label: LabelValue
    window: Window
    features: Mapping[str, tuple[str, str]]
    """Name → (expression, comment)."""
    expected_after: str
    labelled_rows: int
    new_labelled_rows: int
    followers: Mapping[str, float]
    """Fields that go with the label so closely that they may be known no earlier: the correlation."""
    minimum_rows: int | None
    """Only where the usual least would be too many."""


def plan_of(sample: Sample, name: str, wishes: Wishes) -> Plan:
    """Guess everything from a sample; `wishes` decide what somebody has named."""
    roles = guess_roles(columns_of(sample), wishes)
    taken = {column.name for column in (*roles.fields, roles.label) if column}
    event_time = _event_time(roles.time, taken)
    key = roles.key.name if roles.key else NameBook({*taken, event_time}).free(SERIES)
    book = NameBook({*taken, event_time, key} - ({roles.label.name} if roles.label else set()))
    label = _label(roles.label, sample, book)
    window = _window(roles, sample.rows)
    labelled = _labelled(roles.label, sample.rows)
    enough = max(_USUAL_LEAST // 5, int(labelled * 0.8))
    return Plan(
        name=name,
        sample=sample,
        roles=roles,
        event_time=event_time,
        key=key,
        label=label,
        window=window,
        features=_features(roles, event_time, key, label, window),
        expected_after="1d" if _span(roles.time) > _LONG_HISTORY else "1h",
        labelled_rows=labelled,
        followers=_followers(roles, sample),
        new_labelled_rows=min(_USUAL_ROWS, enough),
        minimum_rows=enough // 2 if enough < _USUAL_LEAST else None,
    )


def _event_time(time: Column | None, taken: set[str]) -> str:
    """The key of the event time: the column's own header where it is usable, `event_time` among others."""
    if time and time.header.strip() == "event_time":
        return "event_time"
    return time.name if time else NameBook(taken).free(_NO_TIME)


def _labelled(label: Column | None, rows: int) -> int:
    return rows if label is None else rows - rows * label.missing // label.rows


def _label(column: Column | None, sample: Sample, book: NameBook) -> LabelValue:
    if column is None:
        why = "no column looks like an outcome: replace this by what becomes known later"
        name = book.free(_NO_LABEL)
        return LabelValue("binary", name, name, why)
    if column.type == "boolean":
        return LabelValue("binary", column.name, column.name, "true or false")
    if column.type in ("number", "integer") and (column.low, column.high) != (0, 1):
        return LabelValue("number", column.name, column.name, "a number; for yes or no write a comparison")
    if column.type != "category":
        return LabelValue("binary", book.free(f"is_{column.name}"), f"{column.name} == 1", "0 or 1")
    return _one_of(column, sample, book)


def _one_of(column: Column, sample: Sample, book: NameBook) -> LabelValue:
    """Text with two values: whether it is the rarer one; with more: whether it is the most frequent one."""
    is_pair = column.distinct == 2  # noqa: PLR2004
    value = column.values[1 if is_pair else 0]
    name = book.free("is_" + ("_".join(words_of(value))[:40] or "so"))
    told = "the rarer of two values" if is_pair else "the most frequent value against all others"
    return LabelValue("binary", name, f"{column.name} == {value!r}", f"{told}, of {len(sample.frame):,} rows")


def _followers(roles: Roles, sample: Sample) -> dict[str, float]:
    """Number fields whose correlation with the label is high."""
    if roles.label is None:
        return {}
    outcome = _numbers(roles.label, sample)
    found = {}
    for column in roles.fields:
        if column.type in ("number", "integer") and column.distinct > 1:
            with np.errstate(over="ignore", invalid="ignore"):  # numbers near the largest: no answer
                share = abs(float(_numbers(column, sample).corr(outcome)))
            if share >= _FOLLOWS:
                found[column.name] = share
    return found


def _numbers(column: Column, sample: Sample) -> Series:
    """A column as numbers: text as whether it is the most frequent value."""
    values = read(sample.frame[column.position], column.form)
    if column.form.kind == "text":
        values = (values == column.values[0]).where(values.notna())
    return values.astype("float64")


def _span(time: Column | None) -> timedelta:
    if time and isinstance(time.low, datetime) and isinstance(time.high, datetime):
        return time.high - time.low
    return timedelta(0)


def _window(roles: Roles, rows: int) -> Window:
    """The shortest window that holds some records of a key."""
    seconds = _span(roles.time).total_seconds()
    keys = roles.key.distinct if roles.key else 1
    rate = rows / keys / seconds if seconds else 0.0
    names = list(_WINDOWS)
    fits = [name for name, length in _WINDOWS.items() if rate * length >= _RECORDS_PER_WINDOW]
    short = (fits or names[-2:])[0] if rate else "1d"
    longer = names[min(names.index(short) + 1, len(names) - 1)]
    return Window(short, longer, rate * _WINDOWS[short])


def _features(
    roles: Roles, event_time: str, key: str, label: LabelValue, window: Window
) -> dict[str, tuple[str, str]]:
    book = NameBook({label.name, event_time})
    found = {book.free(column.name): (column.name, "") for column in _usable(roles.fields)}
    if _has_hours(roles.time):
        found[book.free("event_hour")] = (
            "hour(event_time)",
            "of the event time, UTC; tz='Europe/Berlin' for a zone",
        )
    found[book.free("event_weekday")] = ("weekday(event_time)", "0 is Monday")
    found |= _windowed(book, key, label, window)
    return found


def _windowed(book: NameBook, key: str, label: LabelValue, window: Window) -> dict[str, tuple[str, str]]:
    seen = f"about {window.records:,.0f} records of one {key} in the file" if window.records else ""
    count = f"count(window='{window.short}', by=[{key}])"
    mean = f"mean({label.name}, window='{window.long}', by=[{key}], over=labels)"
    return {
        book.free(f"{key}_records_{window.short}"): (count, seen),
        book.free(f"{key}_{label.name}_{window.long}"): (mean, "labels known by then"),
    }


def _has_hours(time: Column | None) -> bool:
    """Whether the times have more than dates; without a column, they may."""
    if time is None or not isinstance(time.low, datetime):
        return True
    whole_days = _span(time) / timedelta(days=1) + 1
    return time.distinct > whole_days or any(
        (moment.hour, moment.minute) != (0, 0)
        for moment in (time.low, time.high)
        if isinstance(moment, datetime)
    )


def _usable(fields: Sequence[Column]) -> list[Column]:
    kinds = ("category", "number", "integer", "boolean")
    return [column for column in fields if column.type in kinds and column.distinct > 1]
