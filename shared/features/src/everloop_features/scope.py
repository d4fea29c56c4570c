"""Which names an expression may use, and how their values are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from everloop_features.nodes import FieldRef, Node, Type
from everloop_features.problems import ExpressionError, nearest
from everloop_features.units import read_unit

__all__ = ["TIME", "Scope", "field_node", "key_node"]

TIME = Node("time", "timestamp")

_READERS: dict[str, tuple[Type, Literal["number", "boolean", "text", "timestamp"]]] = {
    "number": ("number", "number"),
    "integer": ("number", "number"),
    "boolean": ("boolean", "boolean"),
    "category": ("category", "text"),
    "string": ("category", "text"),
    "timestamp": ("timestamp", "timestamp"),
}


def field_node(
    origin: Literal["observation", "label"], name: str, declared: str, unit: str | None = None
) -> Node:
    """A field's value in an expression; whole numbers are numbers, and only numbers have a unit."""
    kind, reader = _READERS[declared]
    followed = read_unit(unit) if kind == "number" else None
    return Node("field", kind, value=FieldRef(origin, name, reader), unit=followed)


def key_node(origin: Literal["observation", "label"], name: str, declared: str) -> Node:
    """A field's value as part of an aggregate's key.

    Raises ExpressionError for a field whose values do not name a thing: a number or a timestamp.
    """
    if declared not in ("category", "string", "integer", "boolean"):
        raise ExpressionError(
            "by",
            f"{name!r} is a {declared} and cannot group records",
            "group by fields of type category, string, integer or boolean",
        )
    if declared == "integer":
        return Node("field", "number", value=FieldRef(origin, name, "integer"))
    return field_node(origin, name, declared)


@dataclass(frozen=True, slots=True)
class Scope:
    """Names and what they mean; `keys` are the names that `by` may list."""

    names: Mapping[str, Node]
    keys: Mapping[str, Node | ExpressionError] = field(default_factory=dict[str, Any])

    def resolve(self, name: str) -> Node:
        """The node of a name. Raises ExpressionError with the nearest name."""
        node = self.names.get(name)
        if node is None:
            raise ExpressionError("unknown-name", f"{name!r} is not known here", nearest(name, self.names))
        return node

    def resolve_key(self, name: str) -> Node:
        """The node of a name in `by`. Raises ExpressionError."""
        node = self.keys.get(name)
        if node is None:
            raise ExpressionError(
                "by", f"{name!r} is not a field of the observation", nearest(name, self.keys)
            )
        if isinstance(node, ExpressionError):
            raise node
        return node
