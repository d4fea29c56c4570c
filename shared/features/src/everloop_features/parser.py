"""From an expression's text to checked nodes: a whitelist over Python's `ast`, then types.

Nothing that is not listed here gets through, and no text of the user ever becomes part of the generated code.
"""

import ast
from dataclasses import dataclass

from everloop_features.checks import (
    compared,
    constant,
    digits,
    expect_arguments,
    fold,
    membership,
    not_allowed,
    same_type,
    wrong_type,
    zone_name,
)
from everloop_features.functions import AGGREGATES, CALENDAR, SCALARS, Scalar
from everloop_features.nodes import Aggregate, Node, Type
from everloop_features.problems import ExpressionError, nearest
from everloop_features.scope import Scope
from everloop_features.windows import keyword_names, over_what, window_us

__all__ = ["Parser", "parse"]

LONGEST_EXPRESSION = 2_000
DEEPEST_EXPRESSION = 40

_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "modulo",
    ast.Pow: "power",
}


def parse(text: str) -> ast.expr:
    """Python's syntax tree of one expression. Raises ExpressionError."""
    if len(text) > LONGEST_EXPRESSION:
        raise ExpressionError("too-complex", f"{len(text)} characters", f"stay below {LONGEST_EXPRESSION}")
    try:
        return ast.parse(text.replace("\n", " ").strip(), mode="eval").body
    except SyntaxError as error:
        where = f" at column {error.offset}" if error.offset else ""
        raise ExpressionError(
            "syntax", f"{error.msg}{where} in {text!r}", "correct the expression"
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(
            "syntax", "this cannot be read as an expression", "correct the expression"
        ) from error


@dataclass(frozen=True, slots=True)
class Parser:
    """Checks syntax trees against the names of a scope.

    `observations` and `labels` are the scopes of an aggregate's operand; None: no aggregates here.
    """

    scope: Scope
    observations: Scope | None = None
    labels: Scope | None = None

    def check(self, tree: ast.expr, depth: int = 0) -> Node:  # noqa: PLR0911  # one return a kind of node
        """The typed node of a syntax tree. Raises ExpressionError."""
        if depth > DEEPEST_EXPRESSION:
            raise ExpressionError(
                "too-complex", "nested too deeply", f"stay below {DEEPEST_EXPRESSION} levels"
            )
        below = depth + 1
        match tree:
            case ast.Constant():
                return constant(tree)
            case ast.Name(id=name):
                return self.scope.resolve(name)
            case ast.BinOp():
                return self._arithmetic(tree, below)
            case ast.UnaryOp():
                return self._unary(tree, below)
            case ast.BoolOp():
                return self._logic(tree, below)
            case ast.Compare():
                return self._comparison(tree, below)
            case ast.IfExp():
                return self._choice(tree, below)
            case ast.Call(func=ast.Name(id=name)):
                return self._call(tree, name, below)
            case _:
                raise not_allowed(tree)

    def _arithmetic(self, tree: ast.BinOp, depth: int) -> Node:
        op = _ARITHMETIC.get(type(tree.op))
        if op is None:
            raise not_allowed(tree)
        sides = [self._typed(side, "number", depth) for side in (tree.left, tree.right)]
        return Node(op, "number", tuple(sides))

    def _unary(self, tree: ast.UnaryOp, depth: int) -> Node:
        match tree.op:
            case ast.Not():
                return Node("not", "boolean", (self._typed(tree.operand, "boolean", depth),))
            case ast.USub():
                return Node("negate", "number", (self._typed(tree.operand, "number", depth),))
            case ast.UAdd():
                return self._typed(tree.operand, "number", depth)
            case _:
                raise not_allowed(tree)

    def _logic(self, tree: ast.BoolOp, depth: int) -> Node:
        op = "and" if isinstance(tree.op, ast.And) else "or"
        return fold(op, "boolean", [self._typed(part, "boolean", depth) for part in tree.values])

    def _comparison(self, tree: ast.Compare, depth: int) -> Node:
        left, parts = self.check(tree.left, depth), []
        for operator, right_tree in zip(tree.ops, tree.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn):
                parts.append(membership(left, right_tree, positive=isinstance(operator, ast.In)))
                continue
            right = self.check(right_tree, depth)
            parts.append(compared(operator, left, right))
            left = right
        return fold("and", "boolean", parts)

    def _choice(self, tree: ast.IfExp, depth: int) -> Node:
        condition = self._typed(tree.test, "boolean", depth)
        then, otherwise = self.check(tree.body, depth), self.check(tree.orelse, depth)
        same_type("the two results of if/else", then, otherwise)
        return Node("choose", then.type, (condition, then, otherwise))

    def _call(self, tree: ast.Call, name: str, depth: int) -> Node:
        if name in AGGREGATES and (name not in SCALARS or keyword_names(tree) & {"window", "by", "over"}):
            return self._aggregate(tree, name, depth)
        scalar = SCALARS.get(name)
        if scalar is None:
            known = {*SCALARS, *AGGREGATES}
            raise ExpressionError("unknown-function", f"there is no function {name!r}", nearest(name, known))
        if name in CALENDAR:
            return self._calendar(tree, name, depth)
        return self._scalar(tree, name, scalar, depth)

    def _scalar(self, tree: ast.Call, name: str, scalar: Scalar, depth: int) -> Node:
        expect_arguments(tree, name, scalar)
        if name == "round":
            return Node("round", "number", (self._typed(tree.args[0], "number", depth),), digits(tree))
        args = [self._argument(arg, name, scalar, depth) for arg in tree.args]
        result = scalar.result or args[0].type
        if len(args) == 1:
            return Node(name, result, tuple(args))
        for other in args[1:]:
            same_type(f"the arguments of {name}", args[0], other)
        return fold(name, result, args)

    def _argument(self, tree: ast.expr, name: str, scalar: Scalar, depth: int) -> Node:
        node = self.check(tree, depth)
        if scalar.argument and node.type != scalar.argument:
            raise wrong_type(f"an argument of {name}", node.type, scalar.argument)
        return node

    def _calendar(self, tree: ast.Call, name: str, depth: int) -> Node:
        expect_arguments(tree, name, SCALARS[name], {"tz"})
        moment = self._typed(tree.args[0], "timestamp", depth)
        place = next((word.value for word in tree.keywords), None)
        if place is None and name in ("hour", "weekday"):
            return Node(f"utc_{name}", "number", (moment,))
        return Node(name, "number", (Node("local", "local-time", (moment,), zone_name(place)),))

    def _aggregate(self, tree: ast.Call, name: str, depth: int) -> Node:
        if self.observations is None:
            raise ExpressionError(
                "nested-aggregate",
                f"{name} stands inside another aggregate or a label",
                "use fields only here",
            )
        window, over, by = window_us(tree, name), over_what(tree), self._by(tree)
        scope = self.observations if over == "observations" else self.labels
        if scope is None:
            raise ExpressionError("over", "this pipeline declares no label", "aggregate over observations")
        keys = tuple(scope.resolve_key(key) for key in by)
        operand = self._operand(tree, name, scope, depth)
        result: Type = operand.type if operand and name == "last" else "number"
        return Node("aggregate", result, value=Aggregate(name, window, keys, over, operand))

    def _by(self, tree: ast.Call) -> list[str]:
        value = next((word.value for word in tree.keywords if word.arg == "by"), None)
        names = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        if value is None or not all(isinstance(name, ast.Name) for name in names):
            raise ExpressionError("by", "by is missing or not a list of fields", "write by=[field, …]")
        return sorted({name.id for name in names if isinstance(name, ast.Name)})

    @staticmethod
    def _operand(tree: ast.Call, name: str, scope: Scope, depth: int) -> Node | None:
        if len(tree.args) > 1 or (not tree.args and name != "count"):
            raise ExpressionError(
                "arguments", f"{name} takes one expression", f"write {name}(x, window=…, by=…)"
            )
        if not tree.args:
            return None
        operand = Parser(scope).check(tree.args[0], depth)
        allowed = {"count": None, "last": None, "sum": ("number", "boolean"), "mean": ("number", "boolean")}
        types = allowed.get(name, ("number",))
        if types and operand.type not in types:
            raise wrong_type(f"the operand of {name}", operand.type, " or ".join(types))
        if name == "last" and operand.type == "timestamp":
            raise wrong_type("the operand of last", "timestamp", "number, boolean or category")
        return operand

    def _typed(self, tree: ast.expr, expected: Type, depth: int) -> Node:
        node = self.check(tree, depth)
        if node.type != expected:
            raise wrong_type(ast.unparse(tree), node.type, expected)
        return node
