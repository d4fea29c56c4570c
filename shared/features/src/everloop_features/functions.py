"""Every scalar operation of the language: argument types, result type and the Python it becomes.

`{0}`, `{1}` stand for the arguments. An operation whose argument is null is null, unless `nulls` says that
the template itself handles nulls. `guard` is a condition under which the result is null. `finite` asks for a
check that the result is a finite number (null otherwise).
"""

from dataclasses import dataclass

from everloop_features.nodes import Type

__all__ = ["AGGREGATES", "CALENDAR", "OPERATIONS", "SCALARS", "Operation", "Scalar"]


@dataclass(frozen=True, slots=True)
class Operation:
    """How one operation is written in Python."""

    template: str
    guard: str | None = None
    nulls: bool = False
    finite: bool = False


@dataclass(frozen=True, slots=True)
class Scalar:
    """A function a user can call: the type of its arguments, how many, and its result."""

    argument: Type | None
    result: Type | None
    least: int = 1
    most: int | None = 1


AGGREGATES = ("count", "sum", "mean", "min", "max", "last")
CALENDAR = ("hour", "weekday", "month", "day_of_year")

SCALARS: dict[str, Scalar] = {
    "abs": Scalar("number", "number"),
    "exp": Scalar("number", "number"),
    "floor": Scalar("number", "number"),
    "log": Scalar("number", "number"),
    "log1p": Scalar("number", "number"),
    "sqrt": Scalar("number", "number"),
    "round": Scalar("number", "number", 1, 2),
    "min": Scalar("number", "number", 2, None),
    "max": Scalar("number", "number", 2, None),
    "concat": Scalar("category", "category", 2, None),
    "lower": Scalar("category", "category"),
    "is_null": Scalar(None, "boolean"),
    "coalesce": Scalar(None, None, 2, None),
    **{name: Scalar("timestamp", "number") for name in CALENDAR},
}

OPERATIONS: dict[str, Operation] = {
    "add": Operation("{0} + {1}", finite=True),
    "subtract": Operation("{0} - {1}", finite=True),
    "multiply": Operation("{0} * {1}", finite=True),
    "divide": Operation("{0} / {1}", guard="{1} == 0.0", finite=True),
    "floor_divide": Operation("{0} // {1}", guard="{1} == 0.0", finite=True),
    "modulo": Operation("{0} % {1}", guard="{1} == 0.0", finite=True),
    "power": Operation("power({0}, {1})"),
    "negate": Operation("-{0}"),
    "not": Operation("not {0}"),
    "and": Operation(
        "False if {0} is False or {1} is False else None if {0} is None or {1} is None else True", nulls=True
    ),
    "or": Operation(
        "True if {0} is True or {1} is True else None if {0} is None or {1} is None else False", nulls=True
    ),
    "equal": Operation("{0} == {1}"),
    "not_equal": Operation("{0} != {1}"),
    "less": Operation("{0} < {1}"),
    "less_equal": Operation("{0} <= {1}"),
    "greater": Operation("{0} > {1}"),
    "greater_equal": Operation("{0} >= {1}"),
    "in": Operation("{0} in {value}"),
    "not_in": Operation("{0} not in {value}"),
    "choose": Operation("None if {0} is None else {1} if {0} else {2}", nulls=True),
    "coalesce": Operation("{1} if {0} is None else {0}", nulls=True),
    "is_null": Operation("{0} is None", nulls=True),
    "abs": Operation("abs({0})"),
    "exp": Operation("exponential({0})"),
    "floor": Operation("float(floor({0}))"),
    "log": Operation("log({0})", guard="{0} <= 0.0"),
    "log1p": Operation("log1p({0})", guard="{0} <= -1.0"),
    "sqrt": Operation("sqrt({0})", guard="{0} < 0.0"),
    "round": Operation("round({0}, {value})", finite=True),
    "min": Operation("{0} if {0} <= {1} else {1}"),
    "max": Operation("{0} if {0} >= {1} else {1}"),
    "concat": Operation("{0} + {1}"),
    "lower": Operation("{0}.lower()"),
    "local": Operation("local({0}, {value})"),
    "utc_hour": Operation("float({0} // 3600000000 % 24)"),
    "utc_weekday": Operation("float(({0} // 86400000000 + 3) % 7)"),
    "hour": Operation("float({0}.hour)"),
    "weekday": Operation("float({0}.weekday())"),
    "month": Operation("float({0}.month)"),
    "day_of_year": Operation("float(day_of_year({0}))"),
}
