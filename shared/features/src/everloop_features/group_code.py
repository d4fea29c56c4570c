"""Code that adds a record to a key's state, and code that reads aggregates from it: `columns` filled in."""

from collections.abc import Mapping
from typing import Any

from everloop_features.columns import ADDED, EMPTY, READ, RECENT
from everloop_features.emitter import Emitter
from everloop_features.layout import SAMPLE_LISTS, Column, GroupLayout, RecentLayout, WindowLayout
from everloop_features.nodes import PANES, Aggregate, Node

__all__ = ["read_group", "write_group"]

_ORDER = {kind: rank for rank, kind in enumerate(ADDED)}


def write_group(emitter: Emitter, layout: GroupLayout) -> None:
    """Add the record to each window and to each run of newest records of its key."""
    key, parts = _key(emitter, layout)
    values = {operand: emitter.value(operand) for operand in layout.operands}
    conditions = [f"{part} is not None" for part in parts]
    wheres = [recent.where for recent in layout.recents]
    if not layout.windows and None not in wheres:
        conditions.append(f"({' or '.join(f'{values[where]} is True' for where in wheres if where)})")
    emitter.line(f"if {' and '.join(conditions) or 'True'}:")
    emitter.line(f"g = W.writable({layout.index}, {key})", 1)
    for window in layout.windows:
        _write_window(emitter, window, values)
    for recent in layout.recents:
        _write_recent(emitter, recent, values)


def read_group(emitter: Emitter, layout: GroupLayout, nodes: list[Node]) -> None:
    """Bind every aggregate of a group: null for a null key, empty for an unknown one."""
    for node in layout.by:
        _bind_observation_key(emitter, node)
    key, parts = _key(emitter, layout)
    targets = {node: f"va{layout.index}_{number}" for number, node in enumerate(nodes)}
    for node, name in targets.items():
        emitter.bind(node, name)
    emitter.line(f"{' = '.join(targets.values())} = None")
    missing = " or ".join(f"{part} is None" for part in parts) or "False"
    emitter.line(f"if not ({missing}):")
    emitter.line(f"g = S.find({layout.index}, {key})", 1)
    emitter.line("if g is None:", 1)
    zeros = [name for node, name in targets.items() if node.value.function in EMPTY]
    emitter.line(f"{' = '.join(zeros)} = 0.0" if zeros else "pass", 2)
    emitter.line("else:", 1)
    for window in layout.windows:
        mine = {n: name for n, name in targets.items() if n.value.span.window_us == window.window_us}
        _read_window(emitter, window, mine)
    for recent in layout.recents:
        wanted = (recent.records, recent.where)
        mine = {
            n: name for n, name in targets.items() if (n.value.span.records, n.value.span.where) == wanted
        }
        _read_recent(emitter, recent, mine)


def _key(emitter: Emitter, layout: GroupLayout) -> tuple[str, list[str]]:
    parts = [emitter.value(node) for node in layout.by]
    return (parts[0] if len(parts) == 1 else f"({', '.join(parts)})"), parts


def _bind_observation_key(emitter: Emitter, node: Node) -> None:
    """A label's key is read from the observation when a vector is computed: same names, same readers."""
    if node.value.origin == "label":
        same = Node(
            node.op, node.type, value=type(node.value)("observation", node.value.name, node.value.reader)
        )
        emitter.bind(node, emitter.value(same))


def _write_window(emitter: Emitter, window: WindowLayout, values: Mapping[Node, str]) -> None:
    """A null operand counts as a record but not as a value."""
    zeros = emitter.constant(tuple(column.zero for column in window.columns))
    emitter.line(f"p = g[{window.first}]", 1)
    emitter.line(f"c = T // {window.pane_us}", 1)
    emitter.line(f"i = -1 if p and p[-1] == c else slot(g, {window.first}, c, {zeros})", 1)
    emitter.line("if i is not None:", 1)
    for operand in dict.fromkeys(column.operand for column in window.columns):
        if operand is not None:
            emitter.line(f"if {values[operand]} is not None:", 2)
        columns = [column for column in window.columns if column.operand == operand]
        for column in sorted(columns, key=lambda column: _ORDER[column.kind]):
            for line in _added(window, column, values[operand] if operand else "None"):
                emitter.line(line, 2 if operand is None else 3)


def _added(window: WindowLayout, column: Column, value: str) -> list[str]:
    cells = _cells(window, column.operand, column.parameter, "[i]")
    words = {
        "x": value,
        "cell": cells[column.kind],
        "of": cells,
        "end": f"(c + 1) * {window.pane_us}",
        "parameter": repr(column.parameter),
        **_sample(window, column.operand),
    }
    # a time without its value: only `time_since` asks for it
    lines = [line for line in ADDED[column.kind] if "{of[last_value]}" not in line or "last_value" in cells]
    return [line.format(**words) for line in lines]


def _cells(window: WindowLayout, operand: Node | None, parameter: float, part: str) -> dict[str, str]:
    """For each column of an operand, the code of a part of it."""
    return {
        column.kind: f"g[{position}]{part}"
        for position, column in enumerate(window.columns, window.first + 1)
        if column.operand == operand and column.parameter in (0.0, parameter)
    }


def _sample(window: WindowLayout, operand: Node | None) -> dict[str, str]:
    if operand not in window.samples:
        return {}
    first = window.sample_at(operand)
    return {
        "sample": "(" + ", ".join(f"g[{first + number}]" for number in range(SAMPLE_LISTS)) + ")",
        "levels": f"g[{window.at('level', operand)}]",
    }


def _write_recent(emitter: Emitter, recent: RecentLayout, values: Mapping[Node, str]) -> None:
    added = "".join(f"{values[operand]}, " for operand in recent.values)
    call = f"remember(g, {recent.first}, {recent.records}, T, ({added}))"
    emitter.line(f"if {values[recent.where]} is True: {call}" if recent.where else call, 1)


def _read_window(emitter: Emitter, window: WindowLayout, targets: Mapping[Node, str]) -> None:
    emitter.line(f"p = g[{window.first}]", 2)
    emitter.line(f"c = T // {window.pane_us}", 2)
    emitter.line("hi = len(p) if p[-1] <= c else bisect_right(p, c)", 2)
    emitter.line(f"lo = 0 if p[0] > c - {PANES} else bisect_right(p, c - {PANES})", 2)
    lines = [f"{name} = {_result(window, node.value)}" for node, name in targets.items()]
    if any("[ex:hi]" in line for line in lines):
        emitter.line(f"ex = 0 if p[0] >= c - {PANES} else bisect_right(p, c - {PANES} - 1)", 2)
    for line in lines:
        emitter.line(line, 2)


def _result(window: WindowLayout, aggregate: Aggregate) -> str:
    operand = aggregate.operand
    parameter = aggregate.parameter if aggregate.function == "ewma" else 0.0
    words: dict[str, Any] = {
        "of": _cells(window, operand, parameter, "[lo:hi]"),
        "exact": _cells(window, operand, 0.0, "[ex:hi]"),
        "window": window.window_us,
        "parameter": repr(aggregate.parameter),
        "half_lives": repr(window.pane_us / parameter) if parameter else "",
        **_sample(window, operand),
    }
    if aggregate.function == "count" and operand is None:
        words["of"] = {"values": words["of"]["records"]}
    return READ[aggregate.function].of(operand).format(**words)


def _read_recent(emitter: Emitter, recent: RecentLayout, targets: Mapping[Node, str]) -> None:
    emitter.line(f"h = g[{recent.first}]", 2)
    emitter.line("n = len(h) if h and h[-1] <= T else bisect_right(h, T)", 2)
    used = dict.fromkeys(node.value.operand for node in targets)
    known: dict[Node | None, tuple[str, str]] = {None: ("h[:n]", "None")}
    for operand in used:
        if operand is not None:
            values = f"g[{recent.at(operand)}]"
            known[operand] = (f"x{recent.at(operand)}", values)
            emitter.line(f"x{recent.at(operand)} = present({values}, n)", 2)
    for node, name in targets.items():
        x, values = known[node.value.operand]
        template = RECENT[node.value.function].of(node.value.operand)
        emitter.line(f"{name} = {template.format(x=x, all=values, parameter=repr(node.value.parameter))}", 2)
