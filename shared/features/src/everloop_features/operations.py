"""Every scalar operation: the Python it becomes, and what it does to units. Code generators are driven by it.

`{0}`, `{1}` stand for the arguments, `{value}` for the operation's constant. An operation whose argument is
null is null, unless `nulls` says that the template itself handles nulls. `guard` is a condition under which
the result is null. `finite` asks for a check that the result is a finite number (null otherwise).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from everloop_features import calculation
from everloop_features.holiday_calendar import holidays_of
from everloop_features.nodes import Node, Type
from everloop_features.units import Unit, combined, one_unit, raised

__all__ = ["OPERATIONS", "Operation", "UnitRule", "operation"]

UnitRule = Literal["none", "keep", "same", "compare", "product", "quotient", "power", "root"]
"""`keep`: the first argument's unit; `same`: all arguments have one, and so has the result; `compare`: they
have one and the result has none; the rest as in algebra."""


@dataclass(frozen=True, slots=True)
class Operation:
    """How one operation is written in Python; `prepare` makes of `Node.value` the constant that code uses."""

    template: str
    unit: UnitRule = "none"
    guard: str | None = None
    nulls: bool = False
    finite: bool = False
    prepare: Callable[[Any], Any] | None = None


OPERATIONS: dict[str, Operation] = {
    "add": Operation("{0} + {1}", "same", finite=True),
    "subtract": Operation("{0} - {1}", "same", finite=True),
    "multiply": Operation("{0} * {1}", "product", finite=True),
    "divide": Operation("{0} / {1}", "quotient", guard="{1} == 0.0", finite=True),
    "floor_divide": Operation("{0} // {1}", "quotient", guard="{1} == 0.0", finite=True),
    "modulo": Operation("{0} % {1}", "same", guard="{1} == 0.0", finite=True),
    "pow": Operation("power({0}, {1})", "power"),
    "negate": Operation("-{0}", "keep"),
    "not": Operation("not {0}"),
    "and": Operation(
        "False if {0} is False or {1} is False else None if {0} is None or {1} is None else True", nulls=True
    ),
    "or": Operation(
        "True if {0} is True or {1} is True else None if {0} is None or {1} is None else False", nulls=True
    ),
    "equal": Operation("{0} == {1}", "compare"),
    "not_equal": Operation("{0} != {1}", "compare"),
    "less": Operation("{0} < {1}", "compare"),
    "less_equal": Operation("{0} <= {1}", "compare"),
    "greater": Operation("{0} > {1}", "compare"),
    "greater_equal": Operation("{0} >= {1}", "compare"),
    "in": Operation("{0} in {value}"),
    "not_in": Operation("{0} not in {value}"),
    "choose": Operation("None if {0} is None else {1} if {0} else {2}", "same", nulls=True),
    "coalesce": Operation("{1} if {0} is None else {0}", "same", nulls=True),
    "is_null": Operation("{0} is None", nulls=True),
    "given": Operation("{0}", "keep"),
    "where": Operation("{0} if {1} is True else None", "keep", nulls=True),
    "abs": Operation("abs({0})", "keep"),
    "sign": Operation("1.0 if {0} > 0.0 else -1.0 if {0} < 0.0 else 0.0"),
    "ceil": Operation("float(ceil({0}))", "keep"),
    "floor": Operation("float(floor({0}))", "keep"),
    "round": Operation("round({0}, {value})", "keep", finite=True),
    "exp": Operation("exponential({0})"),
    "log": Operation("log({0})", guard="{0} <= 0.0"),
    "log2": Operation("log2({0})", guard="{0} <= 0.0"),
    "log10": Operation("log10({0})", guard="{0} <= 0.0"),
    "log1p": Operation("log1p({0})", guard="{0} <= -1.0"),
    "sqrt": Operation("sqrt({0})", "root", guard="{0} < 0.0"),
    "sin": Operation("sin({0})"),
    "cos": Operation("cos({0})"),
    "tan": Operation("tan({0})", finite=True),
    "tanh": Operation("tanh({0})"),
    "sin_of": Operation("sin({0} * {value})", finite=True, prepare=calculation.turn),
    "cos_of": Operation("cos({0} * {value})", finite=True, prepare=calculation.turn),
    "min": Operation("{0} if {0} <= {1} else {1}", "same"),
    "max": Operation("{0} if {0} >= {1} else {1}", "same"),
    "clip": Operation("{1} if {0} < {1} else {2} if {0} > {2} else {0}", "same"),
    "concat": Operation("{0} + {1}"),
    "lower": Operation("{0}.lower()"),
    "upper": Operation("{0}.upper()"),
    "strip": Operation("{0}.strip()"),
    "length": Operation("float(len({0}))"),
    "startswith": Operation("{0}.startswith({1})"),
    "endswith": Operation("{0}.endswith({1})"),
    "contains": Operation("{1} in {0}"),
    "left": Operation("{0}[:{value}]"),
    "right": Operation("{0}[-{value}:]"),
    "replace": Operation("replaced({0}, {value})"),
    "bucket": Operation("bucket({0}, {value})", prepare=calculation.named_edges),
    "hash_bucket": Operation("hash_bucket({0}, {value})"),
    "haversine": Operation("haversine({0}, {1}, {2}, {3}, {value})", prepare=calculation.earth_radius),
    "age": Operation("({1} - {0}) / {value}", prepare=calculation.microseconds_of),
    "local": Operation("local({0}, {value})", prepare=calculation.zone),
    "civil": Operation("civil({0} // 86400000000)"),
    "minute": Operation("float({0} // 60000000 % 60)"),
    "hour": Operation("float({0} // 3600000000 % 24)"),
    "weekday": Operation("float(({0} // 86400000000 + 3) % 7)"),
    "is_weekend": Operation("({0} // 86400000000 + 3) % 7 > 4"),
    "month": Operation("float({0}.month)"),
    "day_of_year": Operation("float(day_of_year({0}))"),
    "is_holiday": Operation("{value}({0})", prepare=holidays_of),
}


def operation(op: str, result: Type, args: tuple[Node, ...], value: Any = None, unit: Unit = None) -> Node:
    """A node of an operation, its unit derived from its arguments' where it has none of its own.

    Raises ExpressionError for arguments whose units do not go together.
    """
    return Node(op, result, args, value, unit or _unit(OPERATIONS[op].unit, op, args))


def _unit(rule: UnitRule, op: str, args: tuple[Node, ...]) -> Unit:
    first = args[0].unit if args else None
    if rule in ("same", "compare"):
        common = _common(op, args)
        return common if rule == "same" else None
    if rule in ("product", "quotient"):
        return combined(first, args[1].unit, 1 if rule == "product" else -1)
    if rule == "power":
        return raised(first, args[1].value) if args[1].op == "constant" else None
    return {"keep": first, "root": raised(first, 0.5)}.get(rule)


def _common(op: str, args: tuple[Node, ...]) -> Unit:
    unit = args[0].unit
    for arg in args[1:]:
        unit = one_unit(f"the two sides of {op.replace('_', ' ')}", unit, arg.unit)
    return unit
