"""Where aggregates keep their state: a group per key, in it a block of lists per window or run of records."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from everloop_features.columns import NEEDS, SAMPLED, ColumnKind, zero
from everloop_features.nodes import PANES, Aggregate, FieldRef, Group, Node, Span

__all__ = ["SAMPLE_LISTS", "Column", "GroupLayout", "RecentLayout", "WindowLayout", "plan"]

RECENT_RETENTION_US = 90 * 86_400 * 1_000_000
"""Event time for which newest records are kept at least, however old they get."""

SAMPLE_LISTS = 3
"""Lists of a sample: the newest pane it knows of, hashes, and for each hash the panes it was seen in."""


@dataclass(frozen=True, slots=True)
class Column:
    """One cell per pane; `operand` is None where the record itself counts, `parameter` a half-life."""

    kind: ColumnKind
    operand: Node | None
    parameter: float = 0.0

    @property
    def zero(self) -> Any:
        """What a cell holds before the first value."""
        return zero(self.kind, of_numbers=self.operand is not None and self.operand.type == "number")


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """One window's block: the list of pane numbers at `first`, its columns, then samples of hashes."""

    window_us: int
    first: int
    columns: tuple[Column, ...]

    @property
    def pane_us(self) -> int:
        """The width of a pane in microseconds."""
        return self.window_us // PANES

    @property
    def samples(self) -> tuple[Node | None, ...]:
        """Operands of which a sample of hashes is kept."""
        return tuple(column.operand for column in self.columns if column.kind in SAMPLED)

    @property
    def width(self) -> int:
        """How many lists the block holds."""
        return 1 + len(self.columns) + SAMPLE_LISTS * len(self.samples)

    @property
    def operands(self) -> list[Node]:
        """The columns' operands."""
        return [column.operand for column in self.columns if column.operand]

    def at(self, kind: ColumnKind, operand: Node | None, parameter: float = 0.0) -> int | None:
        """The position of a column in the group; None if there is none."""
        column = Column(kind, operand, parameter)
        return self.first + 1 + self.columns.index(column) if column in self.columns else None

    def sample_at(self, operand: Node | None) -> int:
        """The position of the first list of a sample."""
        return self.first + 1 + len(self.columns) + SAMPLE_LISTS * self.samples.index(operand)


@dataclass(frozen=True, slots=True)
class RecentLayout:
    """The block of the newest `records` records: their event times at `first`, then one list per operand."""

    records: int
    where: Node | None
    first: int
    values: tuple[Node, ...]

    @property
    def width(self) -> int:
        """How many lists the block holds."""
        return 1 + len(self.values)

    @property
    def operands(self) -> list[Node]:
        """What must be known of a record."""
        return [*([self.where] if self.where else []), *self.values]

    def at(self, operand: Node) -> int:
        """The position of an operand's values in the group."""
        return self.first + 1 + self.values.index(operand)


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """The aggregates that share `over` and `by`, and with them their keys."""

    index: int
    over: Literal["observations", "labels"]
    by: tuple[Node, ...]
    windows: tuple[WindowLayout, ...]
    recents: tuple[RecentLayout, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of the key."""
        return tuple(ref.name for node in self.by if isinstance(ref := node.value, FieldRef))

    @property
    def blocks(self) -> list["WindowLayout | RecentLayout"]:
        """In the order of their lists."""
        return [*self.windows, *self.recents]

    @property
    def width(self) -> int:
        """How many lists one group holds."""
        return sum(block.width for block in self.blocks)

    def empty(self) -> Group:
        """A group without records."""
        return [[] for _ in range(self.width)]

    @property
    def retention_us(self) -> int:
        """Event time after which an untouched group is dropped: twice its longest window."""
        longest = max((window.window_us for window in self.windows), default=0)
        return max(2 * longest, RECENT_RETENTION_US if self.recents else 0)

    @property
    def operands(self) -> list[Node]:
        """What must be known of a record besides its key."""
        return [operand for block in self.blocks for operand in block.operands]

    @property
    def reads_observation(self) -> bool:
        """Whether a label needs fields of its observation here."""
        roots = (*self.by, *self.operands)
        fields = [node.value for root in roots for node in root.walk() if node.op == "field"]
        return self.over == "labels" and any(ref.origin == "observation" for ref in fields)

    def newest_us(self, group: Group) -> int:
        """The event time up to which anything in a group may reach; a window knows it to the pane."""
        newest: list[int] = [group[recent.first][-1] for recent in self.recents if group[recent.first]]
        if self.windows:
            longest = self.windows[-1]
            newest.append((group[longest.first][-1] + 1) * longest.pane_us - 1)
        return max(newest)


@dataclass(slots=True)
class _Blocks:
    windows: dict[int, dict[Column, None]] = field(default_factory=dict[int, dict[Column, None]])
    recents: dict[Span, dict[Node, None]] = field(default_factory=dict[Span, dict[Node, None]])


def plan(aggregates: Iterable[Aggregate]) -> tuple[GroupLayout, ...]:
    """Lay out the state of all aggregates, in an order that depends on them alone."""
    needed: dict[tuple[Literal["observations", "labels"], tuple[Node, ...]], _Blocks] = {}
    for aggregate in aggregates:
        blocks = needed.setdefault((aggregate.over, aggregate.by), _Blocks())
        if aggregate.span.records:
            operands = blocks.recents.setdefault(aggregate.span, {})
            operands.update({aggregate.operand: None} if aggregate.operand else {})
        else:
            columns = blocks.windows.setdefault(aggregate.span.window_us, {})
            columns.update(dict.fromkeys(_columns(aggregate)))
    return tuple(
        _lay_out(GroupLayout(index, over, by, ()), blocks)
        for index, ((over, by), blocks) in enumerate(needed.items())
    )


def _columns(aggregate: Aggregate) -> list[Column]:
    if aggregate.function == "count" and aggregate.operand is None:
        return [Column("records", None)]
    parameter = aggregate.parameter if aggregate.function == "ewma" else 0.0
    return [Column(kind, aggregate.operand, parameter) for kind in NEEDS[aggregate.function]]


def _lay_out(group: GroupLayout, blocks: _Blocks) -> GroupLayout:
    windows: list[WindowLayout] = []
    recents: list[RecentLayout] = []
    first = 0
    for window_us, columns in sorted(blocks.windows.items()):
        windows.append(WindowLayout(window_us, first, tuple(columns)))
        first += windows[-1].width
    for span, operands in blocks.recents.items():
        recents.append(RecentLayout(span.records, span.where, first, tuple(operands)))
        first += recents[-1].width
    return GroupLayout(group.index, group.over, group.by, tuple(windows), tuple(recents))
