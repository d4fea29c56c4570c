"""One generated Python module per pipeline: a function for vectors, and functions for what a record adds.

Names in generated code: F and L are the fields of an observation and of a label, T the record's event time in
microseconds, S what is read, W what is written, J the values kept of an observation, V those kept of a label.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf, log, log1p, sqrt
from typing import Any

from everloop_features import calculation
from everloop_features.emitter import Emitter
from everloop_features.layout import Column, GroupLayout, WindowLayout
from everloop_features.nodes import PANES, Aggregate, Node, Value
from everloop_features.panes import slot

__all__ = ["Functions", "Plan", "generate"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be generated.

    `kept` are the observation's fields that labels will need, `told` the label's fields that are kept when a
    label comes before its observation.
    """

    features: tuple[Node, ...]
    label: Node | None
    layouts: tuple[GroupLayout, ...]
    kept: tuple[Node, ...]
    told: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Functions:
    """The generated functions and their text."""

    vector: Callable[[Mapping[str, Any], int, Any], list[Value]]
    observe: Callable[[Mapping[str, Any], int, Any], None]
    keep: Callable[[Mapping[str, Any], int], tuple[Any, ...]]
    tell: Callable[[Mapping[str, Any], int], tuple[Any, ...]]
    absorb: Callable[[Mapping[str, Any], int, Any], None]
    absorb_joined: Callable[[Sequence[Any], Sequence[Any], int, Any], None]
    label: Callable[[Mapping[str, Any]], bool | float | None]
    text: str


_RUNTIME: dict[str, Any] = {
    "bisect_right": bisect_right,
    "floor": floor,
    "log": log,
    "log1p": log1p,
    "sqrt": sqrt,
    "slot": slot,
    "NEVER": inf,
    **{name: getattr(calculation, name) for name in calculation.__all__},
}


def generate(plan: Plan) -> Functions:
    """Compile the pipeline's functions. The code is made of this package's templates alone."""
    namespace: dict[str, Any] = {"__builtins__": _BUILTINS, **_RUNTIME}
    text = "\n\n".join(
        [
            _vector(plan, namespace),
            _update("observe(F, T, W)", plan, namespace, {"observation": "F.get"}, "observe"),
            _tuple("keep(F, T)", plan.kept, namespace, {"observation": "F.get"}),
            _tuple("tell(L, T)", plan.told, namespace, {"label": "L.get"}),
            _update("absorb(L, T, W)", plan, namespace, {"label": "L.get"}, "absorb"),
            _joined(plan, namespace),
            _label(plan, namespace),
        ]
    )
    exec(compile(text, "<features>", "exec"), namespace)  # noqa: S102  # built from checked nodes and templates only
    names = ("vector", "observe", "keep", "tell", "absorb", "absorb_joined", "label")
    return Functions(**{name: namespace[name] for name in names}, text=text)


_BUILTINS = {
    "abs": abs,
    "float": float,
    "len": len,
    "max": max,
    "min": min,
    "round": round,
    "str": str,
    "sum": sum,
}


def _function(signature: str, emitter: Emitter, result: str) -> str:
    return "\n".join([f"def {signature}:", *emitter.lines, f"    return {result}"])


def _tuple(
    signature: str, nodes: tuple[Node, ...], namespace: dict[str, Any], readers: dict[str, str]
) -> str:
    emitter = Emitter(namespace, readers)
    values = [emitter.value(node) for node in nodes]
    return _function(signature, emitter, f"({''.join(value + ', ' for value in values)})")


def _label(plan: Plan, namespace: dict[str, Any]) -> str:
    emitter = Emitter(namespace, {"label": "L.get"})
    return _function("label(L)", emitter, emitter.value(plan.label) if plan.label else "None")


def _vector(plan: Plan, namespace: dict[str, Any]) -> str:
    emitter = Emitter(namespace, {"observation": "get"})
    emitter.line("get = F.get")
    wanted = {node: None for root in plan.features for node in root.walk() if node.op == "aggregate"}
    for layout in plan.layouts:
        _read_group(emitter, layout, [node for node in wanted if _belongs(node.value, layout)])
    values = [emitter.value(node) for node in plan.features]
    return _function("vector(F, T, S)", emitter, f"[{', '.join(values)}]")


def _belongs(aggregate: Aggregate, layout: GroupLayout) -> bool:
    return (aggregate.over, aggregate.by) == (layout.over, layout.by)


def _key(emitter: Emitter, layout: GroupLayout) -> tuple[str, list[str]]:
    parts = [emitter.value(node) for node in layout.by]
    return (parts[0] if len(parts) == 1 else f"({', '.join(parts)})"), parts


def _read_group(emitter: Emitter, layout: GroupLayout, nodes: list[Node]) -> None:
    """Bind every aggregate of a group: null for a null key, empty for an unknown one."""
    for node in nodes:
        if node.value.over == "labels":
            _bind_observation_keys(emitter, node.value)
    key, parts = _key(emitter, layout)
    for number, node in enumerate(nodes):
        emitter.bind(node, f"va{layout.index}_{number}")
    targets = {node: f"va{layout.index}_{number}" for number, node in enumerate(nodes)}
    emitter.line(f"{' = '.join(targets.values())} = None")
    missing = " or ".join(f"{part} is None" for part in parts) or "False"
    emitter.line(f"if not ({missing}):")
    emitter.line(f"g = S.find({layout.index}, {key})", 1)
    emitter.line("if g is None:", 1)
    zeros = [name for node, name in targets.items() if node.value.function in ("count", "sum")]
    emitter.line(f"{' = '.join(zeros)} = 0.0" if zeros else "pass", 2)
    emitter.line("else:", 1)
    for window in layout.windows:
        mine = {node: name for node, name in targets.items() if node.value.window_us == window.window_us}
        _read_window(emitter, window, mine)


def _bind_observation_keys(emitter: Emitter, aggregate: Aggregate) -> None:
    """A label's key is read from the observation when a vector is computed: same names, same readers."""
    for node in aggregate.by:
        if node.value.origin == "label":
            same = Node(
                node.op, node.type, value=type(node.value)("observation", node.value.name, node.value.reader)
            )
            emitter.bind(node, emitter.value(same))


def _read_window(emitter: Emitter, window: WindowLayout, targets: dict[Node, str]) -> None:
    emitter.line(f"p = g[{window.first}]", 2)
    emitter.line(f"c = T // {window.pane_us}", 2)
    emitter.line("hi = len(p) if p[-1] <= c else bisect_right(p, c)", 2)
    emitter.line(f"lo = 0 if p[0] > c - {PANES} else bisect_right(p, c - {PANES})", 2)
    for node, name in targets.items():
        for line in _result(window, node.value, name):
            emitter.line(line, 2)


def _result(window: WindowLayout, aggregate: Aggregate, name: str) -> list[str]:
    operand = aggregate.operand
    boolean = operand is not None and operand.type == "boolean"

    def panes(kind: Any) -> str:
        return f"g[{window.at(kind, operand)}][lo:hi]"

    match aggregate.function:
        case "count":
            return [f"{name} = float(sum({panes('values' if operand else 'records')}))"]
        case "sum":
            return [f"{name} = float(sum({panes('sum')}))" if boolean else f"{name} = total({panes('sum')})"]
        case "mean" if boolean:
            return [f"n = sum({panes('values')})", f"{name} = sum({panes('sum')}) / n if n else None"]
        case "mean":
            return [f"{name} = mean({panes('sum')}, sum({panes('values')}))"]
        case "last":
            exact = f"[(0 if p[0] >= c - {PANES} else bisect_right(p, c - {PANES} - 1)):hi]"
            times, values = window.at("last_time", operand), window.at("last_value", operand)
            return [f"{name} = last(g[{times}]{exact}, g[{values}]{exact}, T, {window.window_us})"]
        case function:
            worst = "NEVER" if function == "min" else "-NEVER"
            return [f"{name} = extreme({function}({panes(function)}, default={worst}))"]


def _update(signature: str, plan: Plan, namespace: dict[str, Any], readers: dict[str, str], name: str) -> str:
    emitter = Emitter(namespace, readers)
    over = "observations" if name == "observe" else "labels"
    for layout in plan.layouts:
        if layout.over == over and not layout.reads_observation:
            _write_group(emitter, layout)
    return _function(signature, emitter, "None")


def _joined(plan: Plan, namespace: dict[str, Any]) -> str:
    emitter = Emitter(namespace, {})
    for letter, nodes in (("V", plan.told), ("J", plan.kept)):
        for index, node in enumerate(nodes):
            variable = f"v{letter}{index}"
            emitter.line(f"{variable} = {letter}[{index}]")
            emitter.bind(node, variable)
    for layout in plan.layouts:
        if layout.reads_observation:
            _write_group(emitter, layout)
    return _function("absorb_joined(V, J, T, W)", emitter, "None")


def _write_group(emitter: Emitter, layout: GroupLayout) -> None:
    key, parts = _key(emitter, layout)
    operands = {c.operand: None for window in layout.windows for c in window.columns if c.operand}
    values = {operand: emitter.value(operand) for operand in operands}
    present = " and ".join(f"{part} is not None" for part in parts) or "True"
    emitter.line(f"if {present}:")
    emitter.line(f"g = W.writable({layout.index}, {key})", 1)
    for window in layout.windows:
        zeros = emitter.constant(tuple(column.zero for column in window.columns))
        emitter.line(f"p = g[{window.first}]", 1)
        emitter.line(f"c = T // {window.pane_us}", 1)
        emitter.line(f"i = -1 if p and p[-1] == c else slot(g, {window.first}, c, {zeros})", 1)
        emitter.line("if i is not None:", 1)
        _write_columns(emitter, window, values)


def _write_columns(emitter: Emitter, window: WindowLayout, values: Mapping[Node, str]) -> None:
    """Add one record to a pane; a null operand counts as a record but not as a value."""
    for position, column in enumerate(window.columns, window.first + 1):
        if column.operand is None:
            emitter.line(f"g[{position}][i] += 1", 2)
        elif column.kind != "last_value":
            for line in _added(column, position, values[column.operand]):
                emitter.line(line, 2)


def _added(column: Column, position: int, value: str) -> list[str]:
    match column.kind:
        case "values":
            return [f"if {value} is not None: g[{position}][i] += 1"]
        case "sum":
            return [f"if {value} is not None: g[{position}][i] += {value}"]
        case "min":
            return [f"if {value} is not None and {value} < g[{position}][i]: g[{position}][i] = {value}"]
        case "max":
            return [f"if {value} is not None and {value} > g[{position}][i]: g[{position}][i] = {value}"]
        case _:
            return [
                f"t = g[{position}][i]",
                f"if {value} is not None and (t is None or T >= t):",
                f"    g[{position}][i] = T",
                f"    g[{position + 1}][i] = {value}",
            ]
