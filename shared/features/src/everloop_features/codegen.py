"""One generated Python module per pipeline: a function for vectors, and functions for what a record adds.

Names in generated code: F and L are the fields of an observation and of a label, T the record's event time in
microseconds, S what is read, W what is written, J the values kept of an observation, V those kept of a label.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everloop_features import calculation, sketches, summaries
from everloop_features.emitter import Emitter
from everloop_features.group_code import read_group, write_group
from everloop_features.layout import GroupLayout
from everloop_features.nodes import Aggregate, Node, Value
from everloop_features.panes import slot
from everloop_features.recent import remember

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


_MATH = ("ceil", "cos", "floor", "log", "log10", "log1p", "log2", "sin", "sqrt", "tan", "tanh")

_RUNTIME: dict[str, Any] = {
    "bisect_right": bisect_right,
    "remember": remember,
    "slot": slot,
    "NEVER": math.inf,
    **{name: getattr(math, name) for name in _MATH},
    **{
        name: getattr(module, name)
        for module in (calculation, summaries, sketches)
        for name in module.__all__
    },
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
    "set": set,
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
        read_group(emitter, layout, [node for node in wanted if _belongs(node.value, layout)])
    values = [emitter.value(node) for node in plan.features]
    return _function("vector(F, T, S)", emitter, f"[{', '.join(values)}]")


def _belongs(aggregate: Aggregate, layout: GroupLayout) -> bool:
    return (aggregate.over, aggregate.by) == (layout.over, layout.by)


def _update(signature: str, plan: Plan, namespace: dict[str, Any], readers: dict[str, str], name: str) -> str:
    emitter = Emitter(namespace, readers)
    over = "observations" if name == "observe" else "labels"
    for layout in plan.layouts:
        if layout.over == over and not layout.reads_observation:
            write_group(emitter, layout)
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
            write_group(emitter, layout)
    return _function("absorb_joined(V, J, T, W)", emitter, "None")
