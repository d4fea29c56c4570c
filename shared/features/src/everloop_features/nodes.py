"""The checked form of an expression: typed, hashable nodes, so equal parts are computed once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from everloop_features.units import Unit

__all__ = [
    "PANES",
    "RETAINED_PANES",
    "Aggregate",
    "FieldRef",
    "Group",
    "Key",
    "Node",
    "Span",
    "Type",
    "Value",
]

Type = Literal["number", "boolean", "category", "timestamp", "local-time", "date"]
"""What an expression yields; `local-time` and `date` exist only inside calendar functions."""

Value = bool | int | float | str | None
"""One field or feature value; None is null."""

Group = list[list[Any]]
"""The state of one key: for each window or run of newest records a few lists, as `layout` says."""

Key = Any
"""A group's key in memory: the one value of `by`, or a tuple of its values."""

PANES = 32
"""Panes that one window is cut into: a window is wrong by at most 1/32 of itself, at its old end."""

RETAINED_PANES = 64
"""Panes kept behind a key's newest record: a record one whole window late still sees a whole window."""


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A field of a record and how its JSON value is read."""

    origin: Literal["observation", "label"]
    name: str
    reader: Literal["number", "integer", "boolean", "text", "timestamp"]


@dataclass(frozen=True, slots=True)
class Span:
    """What an aggregate looks back on: a window of event time, or the newest `records` of a condition."""

    window_us: int = 0
    records: int = 0
    where: "Node | None" = None


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate over earlier records with the same `by` values.

    `parameter` is a quantile's share, or an ewma's half-life in microseconds. In a window, `where` has become
    part of the operand.
    """

    function: str
    span: Span
    by: tuple["Node", ...]
    over: Literal["observations", "labels"]
    operand: "Node | None"
    parameter: float = 0.0


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. `op` names its template; `value` holds a constant, a FieldRef or an Aggregate.

    The unit takes no part in equality: it follows from the rest.
    """

    op: str
    type: Type
    args: tuple["Node", ...] = ()
    value: Any = None
    unit: Unit = field(default=None, compare=False)

    def walk(self) -> "list[Node]":
        """This node and everything below it, an aggregate's operand and keys not included."""
        return [self, *(below for arg in self.args for below in arg.walk())]
