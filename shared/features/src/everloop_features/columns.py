"""Every aggregate: the columns of state it needs, how a record changes them, and how its value is read.

A window's column holds one cell a pane. In `ADDED`, `{x}` is the operand's value, `{cell}` the column's cell
of the record's pane, `{of[KIND]}` the cell of another column of the same operand, `T` the record's event
time, `{end}` the end of its pane. In `READ`, `{of[KIND]}` is the column's cells of the window, `p[lo:hi]`
their panes, `c` the vector's pane and `T` its event time; `{exact[KIND]}` are the cells with those of the
pane in which the window begins.

The newest records (`last_n`) are kept as they are: in `RECENT`, `{x}` are their values that are not null,
`h` the event times of all and `{all}` all values, of which the first `n` count.
"""

from dataclasses import dataclass
from typing import Any, Literal

from everloop_features.nodes import Node

__all__ = ["ADDED", "EMPTY", "NEEDS", "READ", "RECENT", "SAMPLED", "ColumnKind", "Reading", "zero"]

ColumnKind = Literal[
    "records",
    "values",
    "squares",
    "sum",
    "min",
    "max",
    "first_time",
    "first_value",
    "last_time",
    "last_value",
    "histogram",
    "decayed",
    "weights",
    "level",
]

NEEDS: dict[str, tuple[ColumnKind, ...]] = {
    "count": ("values",),
    "sum": ("sum",),
    "mean": ("values", "sum"),
    "std": ("values", "sum", "squares"),
    "min": ("min",),
    "max": ("max",),
    "first": ("first_time", "first_value"),
    "last": ("last_time", "last_value"),
    "newest": ("last_time",),
    "quantile": ("histogram",),
    "ewma": ("decayed", "weights"),
    "distinct": ("level",),
}

SAMPLED = frozenset({"level"})
"""Columns that come with a sample of the values' hashes, kept beside the panes."""

EMPTY = frozenset({"count", "sum", "distinct"})
"""Aggregates that are 0 where there is no record; the others are null."""

_ZEROS: dict[ColumnKind, Any] = {"min": float("inf"), "max": float("-inf"), "decayed": 0.0, "weights": 0.0}
_NULLS = ("first_time", "first_value", "last_time", "last_value", "histogram")

ADDED: dict[ColumnKind, tuple[str, ...]] = {
    "squares": (
        "n = {of[values]}",
        "if n:",
        "    d = {x} - {of[sum]} / n",
        "    {cell} += d * d * n / (n + 1)",
    ),
    "values": ("{cell} += 1",),
    "sum": ("{cell} += {x}",),
    "min": ("if {x} < {cell}: {cell} = {x}",),
    "max": ("if {x} > {cell}: {cell} = {x}",),
    "first_time": (
        "t = {cell}",
        "if t is None or T < t:",
        "    {cell} = T",
        "    {of[first_value]} = {x}",
    ),
    "first_value": (),
    "last_time": (
        "t = {cell}",
        "if t is None or T >= t:",
        "    {cell} = T",
        "    {of[last_value]} = {x}",
    ),
    "last_value": (),
    "records": ("{cell} += 1",),
    "histogram": ("{cell} = counted({cell}, {x})",),
    "decayed": ("{cell} += {x} * 2.0 ** ((T - {end}) / {parameter})",),
    "weights": ("{cell} += 2.0 ** ((T - {end}) / {parameter})",),
    "level": ("seen({sample}, p, {levels}, i, {x})",),
}
"""In the order in which they are applied: squares look at the values and the sum before this record."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a window's value is read; `boolean` where the operand is one and that makes a difference."""

    number: str
    boolean: str | None = None

    def of(self, operand: Node | None) -> str:
        """The template for an operand."""
        return self.boolean or self.number if operand and operand.type == "boolean" else self.number


READ: dict[str, Reading] = {
    "count": Reading("float(sum({of[values]}))"),
    "sum": Reading("total({of[sum]})", "float(sum({of[sum]}))"),
    "mean": Reading(
        "mean({of[sum]}, sum({of[values]}))", "sum({of[sum]}) / n if (n := sum({of[values]})) else None"
    ),
    "std": Reading("spread({of[sum]}, {of[values]}, {of[squares]})"),
    "min": Reading("(m if (m := min({of[min]})) < NEVER else None) if lo < hi else None"),
    "max": Reading("(m if (m := max({of[max]})) > -NEVER else None) if lo < hi else None"),
    "first": Reading("first({of[first_time]}, {of[first_value]}, T)"),
    "last": Reading("last({exact[last_time]}, {exact[last_value]}, T, {window})"),
    "newest": Reading("last({exact[last_time]}, {exact[last_time]}, T, {window})"),
    "quantile": Reading("histogram_quantile({of[histogram]}, {parameter})"),
    "ewma": Reading("decayed_mean(p[lo:hi], {of[decayed]}, {of[weights]}, c, {half_lives})"),
    "distinct": Reading("distinct({sample}, p, {of[level]}, c)"),
}

RECENT: dict[str, Reading] = {
    "count": Reading("float(len({x}))"),
    "sum": Reading("total({x})", "float(sum({x}))"),
    "mean": Reading("mean({x}, len({x}))", "sum({x}) / len({x}) if {x} else None"),
    "std": Reading("spread_of({x})"),
    "min": Reading("min({x}, default=None)"),
    "max": Reading("max({x}, default=None)"),
    "first": Reading("{x}[0] if {x} else None"),
    "last": Reading("{x}[-1] if {x} else None"),
    "newest": Reading("newest(h, {all}, n)"),
    "quantile": Reading("quantile({x}, {parameter})"),
    "ewma": Reading("recent_mean(h, {all}, n, {parameter})"),
    "distinct": Reading("float(len(set({x})))"),
}


def zero(kind: ColumnKind, *, of_numbers: bool) -> Any:
    """What a cell holds before the first value; sums of booleans are whole numbers."""
    if kind in _NULLS:
        return None
    return _ZEROS.get(kind, 0.0 if of_numbers and kind in ("sum", "squares") else 0)
