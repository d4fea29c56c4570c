"""The pipeline file's text, each guess with what it comes from."""

import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from textwrap import wrap

from everloop.first_steps.columns import Column
from everloop.first_steps.plan import Plan

__all__ = ["range_with_room", "text_of"]

_WIDTH = 110
_SHOWN = 60
_LARGEST_EXACT = 1e15
SOURCE = "history"


def text_of(plan: Plan) -> str:
    """The whole file."""
    parts = (_head(plan), _observation(plan), _label(plan), _features(plan), _training(plan))
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    source, sample = plan.sample.source.path.name, plan.sample
    seen = f"{sample.rows:,} rows" if sample.is_whole else f"{len(sample.frame):,} of {sample.rows:,} rows"
    yield from _comment(
        f"Drafted by `everloop init` from {_quoted(source)} ({seen}). Every guess says what it saw: read"
        " and mend them, then: everloop check FILE, everloop apply FILE"
    )
    yield f"pipeline: {plan.name}"
    yield '# team: ""                # who answers for it'
    yield '# description: ""         # what is predicted, and what for'
    yield from _key(plan)


def _key(plan: Plan) -> Iterator[str]:
    key, others = plan.roles.key, [column.name for column in plan.roles.other_keys]
    also = f" Others that would do: {', '.join(others)}." if others else ""
    if key is None:
        told = f"No column groups the rows, so all belong to one {plan.key}: a field with one value."
    else:
        average = key.rows / max(key.distinct, 1)
        told = f"{key.distinct:,} different values, {average:,.0f} rows of each in the sample.{also}"
    yield from _comment(f"The records of one {plan.key} stay in order, and windows are counted by it. {told}")
    yield f"partition_by: [{plan.key}]"
    yield f"partitions: {4 if key else 1}"


def _observation(plan: Plan) -> Iterator[str]:
    roles = plan.roles
    yield "observation:"
    told = (
        f"Each record needs an id. In the file it is {_column(roles.id)}."
        if roles.id
        else (
            "Each record needs an id of its own, the same for an observation and its label; no column is one."
        )
    )
    yield from _comment(told, 2)
    yield from _comment(_time_told(plan), 2)
    yield f"  event_time: {plan.event_time}"
    yield f"  replay_sources: [{SOURCE}]  # this source may say when a record was known: it replays the past"
    yield "  fields:"
    if roles.key is None:
        yield f"    {plan.key}: {{type: category, values: [{_quoted(plan.name)}]}}"
    for column in roles.fields:
        yield from _field(column, follows=plan.followers.get(column.name))


def _time_told(plan: Plan) -> str:
    time = plan.roles.time
    if time is None:
        return "When it happened: no column holds times without gaps. Send it as RFC 3339 text."
    note = f" {_sentence(time.form.note)}" if time.form.note else ""
    return f"When it happened: {_column(time)}, {_moment(time.low)} to {_moment(time.high)}.{note}"


def _moment(value: float | datetime | None) -> str:
    return value.strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else "?"


def _label(plan: Plan) -> Iterator[str]:
    label, others = plan.roles.label, [column.name for column in plan.roles.other_labels]
    also = f" Other candidates: {', '.join(others)}." if others else ""
    known = "A label has the observation's id, its own event_time, and the key."
    yield "label:"
    yield from _comment(f"What becomes known later: {plan.label.why}.{also} {known}", 2)
    yield f"  type: {plan.label.type}"
    yield "  fields:"
    if label is None:
        yield f"    {plan.label.name}: {{type: boolean}}"
    else:
        yield from _field(label, is_label=True)
    yield f"  value: {{{plan.label.name}: {_quoted(plan.label.expression)}}}"
    yield f"  expected_after: {plan.expected_after}      # a guess: how late labels usually are"


def _features(plan: Plan) -> Iterator[str]:
    yield from _comment(
        "Take out whatever is not known yet when the prediction is asked for: it would leak the answer."
        " The language: docs/reference/feature-language.md"
    )
    yield "features:"
    for name, (expression, comment) in plan.features.items():
        yield f"  {name}: {_quoted(expression)}" + (f"  # {comment}" if comment else "")


def _training(plan: Plan) -> Iterator[str]:
    yield "training:"
    yield from _comment(f"About {plan.labelled_rows:,} rows of the file have a label.", 2)
    yield f"  when: {{new_labelled_rows: {plan.new_labelled_rows}, drift: true, cooldown: 6h}}"
    if plan.minimum_rows is not None:
        yield f"  minimum_rows: {plan.minimum_rows}  # the usual 500 would be more than there are"


def _field(column: Column, *, is_label: bool = False, follows: float | None = None) -> Iterator[str]:
    yield from _comment(_seen(column), 4)
    if follows is not None:
        told = f"It goes closely with the label (correlation {follows:.2f}): is it known in time?"
        yield from _comment(told, 4)
    yield f"    {column.name}:"
    yield f"      type: {column.type}"
    if column.type in ("number", "integer"):
        yield "      # unit:              # fill in, such as mi, degC or EUR"
    if column.missing and not is_label:
        yield "      nullable: true"
    yield from (f"      {line}" for line in _limits(column))


def _seen(column: Column) -> str:
    """What the sample has to say about a column, as sentences."""
    told = [f"{_column(column)[0].upper()}{_column(column)[1:]}"]
    if column.is_empty:
        return f"{told[0]} is empty in the sample: its type is not known."
    if column.missing:
        told.append(f"{100 * column.missing / column.rows:.2g}% missing")
    if column.low is not None:
        told.append(f"{_shown(column.low)} to {_shown(column.high)} seen{_room(column)}")
    elif column.type != "boolean":
        told.append(_values_seen(column))
    notes = [column.form.note] if column.form.note else []
    if column.odd:
        some = ", ".join(_quoted(text) for text in column.odd)
        notes.append(f"cells such as {some} are no {column.type}: send null instead")
    seen = ": ".join([told[0], ", ".join(told[1:])]) if told[1:] else told[0]
    return " ".join([f"{seen}.", *map(_sentence, notes)])


def _room(column: Column) -> str:
    has_room = column.type != "timestamp" and not _is_flag(column) and _range(column) is not None
    return "; half of that span is left as head room" if has_room else ""


def _values_seen(column: Column) -> str:
    if column.is_listed:
        return f"{column.distinct} values, each often; any other is refused until it is added here"
    some = ", ".join(_quoted(str(value)[:_SHOWN]) for value in column.values[:3])
    kind = "free text, no feature of its own" if column.type == "string" else "left open"
    return f"{column.distinct:,} different values ({kind}), such as {some}"


def _limits(column: Column) -> Iterator[str]:
    if column.is_listed:
        yield f"values: [{', '.join(_quoted(value) for value in sorted(column.values))}]"
    limits = _range(column)
    if limits:
        yield f"min: {limits[0]}"
        yield f"max: {limits[1]}"


def _range(column: Column) -> tuple[str, str] | None:
    if column.type not in ("number", "integer") or not isinstance(column.low, float):
        return None
    if _is_flag(column):
        return "0", "1"
    assert isinstance(column.high, float)
    return range_with_room(column.low, column.high)


def _is_flag(column: Column) -> bool:
    return column.type == "integer" and (column.low, column.high) == (0, 1)


def range_with_room(low: float, high: float) -> tuple[str, str] | None:
    """Half the span more on each side, rounded outwards, and not across zero; None for what overflows.

    Example:
        >>> range_with_room(17.0, 4983.0)
        ('0', '7500')
    """
    span = (high - low) or abs(high) or 1.0
    if not math.isfinite(span * 4):
        return None
    unit = 10.0 ** (math.floor(math.log10(span)) - 1)
    lowest = math.floor((low - span / 2) / unit) * unit
    highest = math.ceil((high + span / 2) / unit) * unit
    if low >= 0:
        lowest = max(lowest, 0.0)
    if high <= 0:
        highest = min(highest, 0.0)
    return _number(min(lowest, low)), _number(max(highest, high))


def _number(value: float) -> str:
    """A number as YAML reads it: an exponent needs a point."""
    if value.is_integer() and abs(value) < _LARGEST_EXACT:
        return str(int(value))
    text = repr(float(f"{value:.15g}"))
    mantissa, mark, exponent = text.partition("e")
    return text if not mark or "." in mantissa else f"{mantissa}.0e{exponent}"


def _shown(value: float | datetime | None) -> str:
    return _moment(value) if isinstance(value, datetime) else f"{value:,.6g}"


def _column(column: Column) -> str:
    return f"column {_quoted(column.header)}"


def _quoted(text: str) -> str:
    """As YAML's and JSON's double-quoted text, in printable characters alone."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _comment(text: str, indent: int = 0) -> Sequence[str]:
    room = _WIDTH - indent - 2
    return [f"{' ' * indent}# {line}" for line in wrap(text, room, break_on_hyphens=False)]
