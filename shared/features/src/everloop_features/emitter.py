"""Straight-line Python for nodes: every distinct node becomes one local variable, computed once."""

from typing import Any

from everloop_features.nodes import FieldRef, Node
from everloop_features.operations import OPERATIONS

__all__ = ["Emitter"]

_READ = {
    "number": "{0} if {0}.__class__ is float and {0} - {0} == 0.0 else number({0})",
    "integer": "integer({0})",
    "text": "{0} if {0}.__class__ is str else None",
    "boolean": "{0} if {0} is True or {0} is False else None",
    "timestamp": "timestamp({0})",
}


class Emitter:
    """Collects the lines of one generated function.

    `namespace` is shared by all functions of a pipeline and holds the constants: names, texts and numbers of
    the user reach the code only through it. `readers` maps an origin to the local name of its dict's `get`.
    """

    def __init__(self, namespace: dict[str, Any], readers: dict[str, str]) -> None:
        self.namespace = namespace
        self.readers = readers
        self.lines: list[str] = []
        self._variables: dict[Node, str] = {}

    def line(self, text: str, indent: int = 0) -> None:
        """Add one line."""
        self.lines.append("    " * (indent + 1) + text)

    def constant(self, value: Any) -> str:
        """The name under which generated code finds `value`."""
        name = f"K{len(self.namespace)}"
        self.namespace[name] = value
        return name

    def bind(self, node: Node, variable: str) -> None:
        """Say that `variable` already holds the node's value."""
        self._variables[node] = variable

    def value(self, node: Node) -> str:
        """The variable that holds the node's value; its lines are added on first use."""
        known = self._variables.get(node)
        if known is None:
            known = self._emit(node)
            self._variables[node] = known
        return known

    def fresh(self) -> str:
        """A variable that nothing else uses."""
        return f"v{len(self.lines)}"

    def _emit(self, node: Node) -> str:
        if node.op == "constant":
            return self.constant(node.value)
        if node.op == "time":
            return "T"
        if node.op == "field":
            return self._field(node.value)
        return self._operation(node)

    def _field(self, ref: FieldRef) -> str:
        variable = self.fresh()
        self.line(f"{variable} = {self.readers[ref.origin]}({self.constant(ref.name)})")
        self.line(f"{variable} = {_READ[ref.reader].format(variable)}")
        return variable

    def _operation(self, node: Node) -> str:
        operation = OPERATIONS[node.op]
        args = [self.value(arg) for arg in node.args]
        value = "" if node.value is None else self.constant((operation.prepare or _as_it_is)(node.value))
        code = operation.template.format(*args, value=value)
        conditions = [] if operation.nulls else [f"{a} is None" for a in dict.fromkeys(args) if a[0] == "v"]
        if operation.guard:
            conditions.append(operation.guard.format(*args))
        variable = self.fresh()
        self.line(
            f"{variable} = " + (f"None if {' or '.join(conditions)} else {code}" if conditions else code)
        )
        if operation.finite:
            self.line(f"if {variable} is not None and {variable} - {variable} != 0.0: {variable} = None")
        return variable


def _as_it_is(value: Any) -> Any:
    return value
