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

_OF_DATES = ("month", "day_of_year", "is_holiday")
"""What needs a calendar; the rest is arithmetic on the wall clock."""


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
    zone = zone_name(place)
    clock = args if place is None else (operation("local", "local-time", args, zone),)
    if name in _OF_DATES:
        clock = (operation("civil", "date", clock),)
    return operation(name, result, clock, value)
