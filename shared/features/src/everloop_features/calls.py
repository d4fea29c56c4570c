"""Calls of functions of single values, after their arguments have been checked."""

import ast

from everloop_features.checks import fold, keyword, same_type
from everloop_features.functions import CALENDAR, Scalar
from everloop_features.literals import choice, zone_name
from everloop_features.nodes import Node, Type
from everloop_features.operations import operation
from everloop_features.problems import ExpressionError
from everloop_features.scope import TIME

__all__ = ["scalar_call"]

_IN_UTC = ("minute", "hour", "weekday", "is_weekend")
"""Parts of the wall clock that UTC has without a calendar."""


def scalar_call(tree: ast.Call, name: str, scalar: Scalar, args: tuple[Node, ...]) -> Node:
    """The node of a call. Raises ExpressionError for constants, types or units that do not fit."""
    result: Type = scalar.result or args[0].type
    if scalar.result is None:
        for other in args[1:]:
            same_type(f"the arguments of {name}", args[0], other)
    value = scalar.read(tree.args[len(args) :]) if scalar.read else None
    if name in CALENDAR:
        return _calendar(tree, name, result, args, value)
    if name == "age":
        unit = choice(keyword(tree, "unit"), "duration")
        return operation("age", result, (args[0], *(args[1:] or (TIME,))), unit, ((unit, 1),))
    if name == "haversine":
        unit = choice(keyword(tree, "unit"), "distance")
        return operation("haversine", result, args, unit, ((unit, 1),))
    if name == "hash_bucket" and args[0].type == "timestamp":
        raise ExpressionError("type", "hash_bucket of a timestamp", "use a category, a number or a boolean")
    return fold(name, result, args) if scalar.many else operation(name, result, args, value)


def _calendar(tree: ast.Call, name: str, result: Type, args: tuple[Node, ...], value: str | None) -> Node:
    place = keyword(tree, "tz")
    if place is None and name in _IN_UTC:
        return operation(f"utc_{name}", result, args)
    return operation(name, result, (operation("local", "local-time", args, zone_name(place)),), value)
