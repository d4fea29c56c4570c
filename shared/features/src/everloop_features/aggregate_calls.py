"""Calls of aggregates: what they look back on, over which records, and of what."""

import ast
from typing import TYPE_CHECKING, Literal

from everloop_features.checks import expect_arguments, keyword, keyword_names, wrong_type
from everloop_features.functions import AGGREGATES, SCALARS
from everloop_features.literals import choice, duration_us, share, whole
from everloop_features.nodes import Aggregate, Node, Span, Type
from everloop_features.operations import operation
from everloop_features.problems import ExpressionError
from everloop_features.scope import TIME, Scope

if TYPE_CHECKING:
    from everloop_features.parser import Parser

__all__ = ["COMMON_WORDS", "aggregate", "is_aggregate"]

MOST_RECORDS = 200
"""Records that `last_n` may ask for."""

HALF_LIVES = 100
"""Half-lives that a window may span: what is older weighs nothing, and rounding would have the last word."""

COMMON_WORDS = ("window", "last_n", "by", "over", "where")
"""What every aggregate takes beside its operand."""
_MORE_WORDS = {"ewma": ("half_life",), "time_since": ("unit",)}
_TRUE = Node("constant", "boolean", value=True)


def is_aggregate(tree: ast.Call, name: str) -> bool:
    """Whether a call is of an aggregate: `min` and `max` are both kinds of function."""
    return name in AGGREGATES and (name not in SCALARS or bool(keyword_names(tree) & {*COMMON_WORDS}))


def aggregate(tree: ast.Call, name: str, parser: "Parser") -> Node:
    """The node of an aggregate's call. Raises ExpressionError."""
    if parser.observations is None:
        raise ExpressionError(
            "nested-aggregate", f"{name} stands inside another aggregate or a label", "use fields only here"
        )
    _, least, most = AGGREGATES[name]
    usage = f"write {name}({'x, 0.9' if name == 'quantile' else 'x'}, window=…, by=…)"
    expect_arguments(tree, name, (least, most), (*COMMON_WORDS, *_MORE_WORDS.get(name, ())), usage)
    over = _over(tree)
    scope = parser.observations if over == "observations" else parser.labels
    if scope is None:
        raise ExpressionError("over", "this pipeline declares no label", "aggregate over observations")
    return _Call(tree, name, over, scope, type(parser)(scope)).node()


class _Call:
    """One call on its way to a node."""

    def __init__(
        self,
        tree: ast.Call,
        name: str,
        over: Literal["observations", "labels"],
        scope: Scope,
        parser: "Parser",
    ) -> None:
        self.tree = tree
        self.name = name
        self.over = over
        self.parser = parser
        self.by = tuple(scope.resolve_key(key) for key in _by(tree))
        condition = keyword(tree, "where")
        self.where = None if condition is None else self._condition(condition)
        self.span = self._span()

    def node(self) -> Node:
        """The aggregate, or what it is made of."""
        args = self.tree.args
        match self.name:
            case "ratio":
                return self._ratio()
            case "time_since":
                unit = choice(keyword(self.tree, "unit"), "duration")
                newest = self._of("newest", self._operand(args[0]) if args else None, "timestamp")
                return operation("age", "number", (newest, TIME), unit, ((unit, 1),))
            case "quantile":
                return self._of("quantile", self._operand(args[0]), parameter=share(args[1]))
            case "ewma":
                return self._of("ewma", self._operand(args[0]), parameter=self._half_life_us())
            case name:
                operand = self._operand(args[0]) if args else None
                kept = operand.type if operand and name in ("first", "last") else "number"
                return self._of(name, operand, kept)

    def _of(
        self, function: str, operand: Node | None, result: Type = "number", parameter: float = 0.0
    ) -> Node:
        if self.span.window_us and self.where is not None:
            operand = operation(
                "where", operand.type if operand else "boolean", (operand or _TRUE, self.where)
            )
        value = Aggregate(function, self.span, self.by, self.over, operand, parameter)
        unit = operand.unit if operand and function not in ("count", "distinct", "newest") else None
        return Node("aggregate", result, value=value, unit=unit)

    def _ratio(self) -> Node:
        """Sum over sum where both are known; of one condition, the share of the records where it holds."""
        parts = [self._operand(arg) for arg in self.tree.args]
        if len(parts) == 1:
            if parts[0].type != "boolean":
                raise wrong_type("the one operand of ratio", parts[0].type, "boolean, or a second operand,")
            above, below = self._of("sum", parts[0]), self._of("count", None)
        else:
            both = [operation("given", x.type, (x, y)) for x, y in (parts, parts[::-1])]
            above, below = (self._of("sum", part) for part in both)
        return operation("divide", "number", (above, below))

    def _operand(self, tree: ast.expr) -> Node:
        operand = self.parser.check(tree)
        types = AGGREGATES[self.name][0]
        if types and operand.type not in types:
            raise wrong_type(f"the operand of {self.name}", operand.type, _either(types))
        return operand

    def _condition(self, tree: ast.expr) -> Node:
        condition = self.parser.check(tree)
        if condition.type != "boolean":
            raise wrong_type("where", condition.type, "boolean")
        return condition

    def _span(self) -> Span:
        window, records = keyword(self.tree, "window"), keyword(self.tree, "last_n")
        if records is None or window is not None:
            both = " and not last_n as well" if records is not None else " or a last_n"
            what = f"{self.name} needs a window{both}"
            return Span(duration_us(window if records is None else None, "window", what))
        number = whole(records, 1, MOST_RECORDS)
        if number is None:
            raise ExpressionError("last-n", "last_n is no whole number", f"write last_n=1 to {MOST_RECORDS}")
        return Span(records=number, where=self.where)

    def _half_life_us(self) -> float:
        half_life = duration_us(keyword(self.tree, "half_life"), "half-life", "ewma needs a half_life")
        if half_life * HALF_LIVES < self.span.window_us:
            mend = f"use at least a {HALF_LIVES}th of the window"
            raise ExpressionError("half-life", "the half_life is too short for the window", mend)
        return float(half_life)


def _either(types: tuple[Type, ...]) -> str:
    *others, last = types
    return f"{', '.join(others)} or {last}" if others else last


def _by(tree: ast.Call) -> list[str]:
    value = keyword(tree, "by")
    names = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    if value is None or not all(isinstance(name, ast.Name) for name in names):
        raise ExpressionError("by", "by is missing or not a list of fields", "write by=[field, …]")
    return sorted({name.id for name in names if isinstance(name, ast.Name)})


def _over(tree: ast.Call) -> Literal["observations", "labels"]:
    """Which records an aggregate is over; observations unless it says labels."""
    match keyword(tree, "over"):
        case None | ast.Name(id="observations"):
            return "observations"
        case ast.Name(id="labels"):
            return "labels"
        case _:
            raise ExpressionError("over", "over is neither observations nor labels", "write over=labels")
