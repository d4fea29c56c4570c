"""Where aggregates keep their state: one group per key, in it one block of panes per window."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from everloop_features.nodes import PANES, Aggregate, FieldRef, Node

__all__ = ["Column", "ColumnKind", "GroupLayout", "WindowLayout", "plan"]

ColumnKind = Literal["records", "values", "sum", "min", "max", "last_time", "last_value"]

_NEEDS: dict[str, tuple[ColumnKind, ...]] = {
    "count": ("values",),
    "sum": ("sum",),
    "mean": ("values", "sum"),
    "min": ("min",),
    "max": ("max",),
    "last": ("last_time", "last_value"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One number per pane; `operand` is None for the count of records."""

    kind: ColumnKind
    operand: Node | None

    @property
    def zero(self) -> float | int | None:
        """What the column holds before the first value."""
        match self.kind:
            case "min":
                return float("inf")
            case "max":
                return float("-inf")
            case "last_time" | "last_value":
                return None
            case "sum" if self.operand is not None and self.operand.type == "number":
                return 0.0
            case _:
                return 0


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """One window's block: the list of pane numbers at `first`, its columns right after it."""

    window_us: int
    first: int
    columns: tuple[Column, ...]

    @property
    def pane_us(self) -> int:
        """The width of a pane in microseconds."""
        return self.window_us // PANES

    def at(self, kind: ColumnKind, operand: Node | None) -> int:
        """The position of a column in the group."""
        return self.first + 1 + self.columns.index(Column(kind, operand))


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """The aggregates that share `over` and `by`, and with them their keys."""

    index: int
    over: Literal["observations", "labels"]
    by: tuple[Node, ...]
    windows: tuple[WindowLayout, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of the key."""
        return tuple(ref.name for node in self.by if isinstance(ref := node.value, FieldRef))

    @property
    def width(self) -> int:
        """How many lists one group holds."""
        return sum(1 + len(window.columns) for window in self.windows)

    @property
    def retention_us(self) -> int:
        """Event time after which an untouched group is dropped: twice its longest window."""
        return 2 * max(window.window_us for window in self.windows)

    @property
    def reads_observation(self) -> bool:
        """Whether a label needs fields of its observation here."""
        operands = [column.operand for window in self.windows for column in window.columns if column.operand]
        fields = [node.value for root in (*self.by, *operands) for node in root.walk() if node.op == "field"]
        return self.over == "labels" and any(ref.origin == "observation" for ref in fields)


def plan(aggregates: Iterable[Aggregate]) -> tuple[GroupLayout, ...]:
    """Lay out the state of all aggregates, in an order that depends on them alone."""
    needed: dict[
        tuple[Literal["observations", "labels"], tuple[Node, ...]], dict[int, dict[Column, None]]
    ] = {}
    for aggregate in aggregates:
        windows = needed.setdefault((aggregate.over, aggregate.by), {})
        columns = windows.setdefault(aggregate.window_us, {})
        for kind in _NEEDS[aggregate.function]:
            columns[_column(kind, aggregate.operand)] = None
    return tuple(
        GroupLayout(index, over, by, _lay_out(windows))
        for index, ((over, by), windows) in enumerate(needed.items())
    )


def _column(kind: ColumnKind, operand: Node | None) -> Column:
    return Column("records" if operand is None else kind, operand)


def _lay_out(windows: dict[int, dict[Column, None]]) -> tuple[WindowLayout, ...]:
    blocks, first = [], 0
    for window_us, columns in sorted(windows.items()):
        blocks.append(WindowLayout(window_us, first, tuple(columns)))
        first += 1 + len(columns)
    return tuple(blocks)
