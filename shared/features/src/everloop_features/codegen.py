"""One generated Python module per pipeline: a function for vectors, and functions for what a record adds.

Names in generated code: F and L are the fields of an observation and of a label, T the record's event time in
microseconds, S what is read, W what is written, J the values kept of an observation, V those told by a label.
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

    `kept` are the observation's fields that its groups and its labels need, `told` the label's fields that
    groups over labels need: what is remembered of a record.
    """

    features: tuple[Node, ...]
    label: Node | None
    layouts: tuple[GroupLayout, ...]
    kept: tuple[Node, ...]
    told: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Functions:
    """The generated functions and their text; `observe` also gives what is to be kept."""

    vector: Callable[[Mapping[str, Any], int, Any], list[Value]]
    observe: Callable[[Mapping[str, Any], int, Any], tuple[Any, ...]]
    observe_kept: Callable[[Sequence[Any], int, Any], None]
    tell: Callable[[Mapping[str, Any], int], tuple[Any, ...]]
    absorb_told: Callable[[Sequence[Any], int, Any], None]
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
            _observe(plan, namespace),
            _again("observe_kept(J, T, W)", {"J": plan.kept}, _groups(plan, "observations"), namespace),
            _tell(plan, namespace),
            _again("absorb_told(V, T, W)", {"V": plan.told}, _groups(plan, "labels"), namespace),
            _again(
                "absorb_joined(V, J, T, W)",
                {"V": plan.told, "J": plan.kept},
                [layout for layout in plan.layouts if layout.reads_observation],
                namespace,
            ),
            _label(plan, namespace),
        ]
    )
    exec(compile(text, "<features>", "exec"), namespace)  # noqa: S102  # built from checked nodes and templates only
    names = ("vector", "observe", "observe_kept", "tell", "absorb_told", "absorb_joined", "label")
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


def _values(emitter: Emitter, nodes: tuple[Node, ...]) -> str:
    values = [emitter.value(node) for node in nodes]
    return f"({''.join(value + ', ' for value in values)})"


def _tell(plan: Plan, namespace: dict[str, Any]) -> str:
    emitter = Emitter(namespace, {"label": "L.get"})
    return _function("tell(L, T)", emitter, _values(emitter, plan.told))


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


def _groups(plan: Plan, over: str) -> list[GroupLayout]:
    """The layouts that need a record of one kind alone."""
    return [layout for layout in plan.layouts if layout.over == over and not layout.reads_observation]


def _observe(plan: Plan, namespace: dict[str, Any]) -> str:
    emitter = Emitter(namespace, {"observation": "F.get"})
    for layout in _groups(plan, "observations"):
        write_group(emitter, layout)
    return _function("observe(F, T, W)", emitter, _values(emitter, plan.kept))


def _again(
    signature: str,
    remembered: Mapping[str, tuple[Node, ...]],
    layouts: list[GroupLayout],
    namespace: dict[str, Any],
) -> str:
    """Adds what is remembered of a record, by the letter under which its values come."""
    emitter = Emitter(namespace, {})
    for letter, nodes in remembered.items():
        for index, node in enumerate(nodes):
            variable = f"v{letter}{index}"
            emitter.line(f"{variable} = {letter}[{index}]")
            emitter.bind(node, variable)
    for layout in layouts:
        write_group(emitter, layout)
    return _function(signature, emitter, "None")
