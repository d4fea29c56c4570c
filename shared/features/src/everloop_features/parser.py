"""From an expression's text to checked nodes: a whitelist over Python's `ast`, then types.

Nothing that is not listed here gets through, and no text of the user ever becomes part of the generated code.
"""

import ast
from dataclasses import dataclass

from everloop_features.aggregate_calls import aggregate, is_aggregate
from everloop_features.calls import scalar_call
from everloop_features.checks import (
    compared,
    constant,
    expect_arguments,
    fold,
    membership,
    not_allowed,
    same_type,
    wrong_type,
)
from everloop_features.functions import AGGREGATES, SCALARS
from everloop_features.nodes import Node, Type
from everloop_features.operations import operation
from everloop_features.problems import ExpressionError, nearest
from everloop_features.scope import Scope

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
    ast.Pow: "pow",
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
        return operation(op, "number", tuple(sides))

    def _unary(self, tree: ast.UnaryOp, depth: int) -> Node:
        match tree.op:
            case ast.Not():
                return operation("not", "boolean", (self._typed(tree.operand, "boolean", depth),))
            case ast.USub():
                return operation("negate", "number", (self._typed(tree.operand, "number", depth),))
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
        return operation("choose", then.type, (condition, then, otherwise))

    def _call(self, tree: ast.Call, name: str, depth: int) -> Node:
        if is_aggregate(tree, name):
            return aggregate(tree, name, self)
        scalar = SCALARS.get(name)
        if scalar is None:
            known = {*SCALARS, *AGGREGATES}
            raise ExpressionError("unknown-function", f"there is no function {name!r}", nearest(name, known))
        expect_arguments(tree, name, (scalar.least, scalar.most), scalar.words)
        taken = len(tree.args) if scalar.many else min(len(tree.args), len(scalar.arguments))
        args = tuple(
            self.argument(arg, name, scalar.arguments[min(index, len(scalar.arguments) - 1)], depth)
            for index, arg in enumerate(tree.args[:taken])
        )
        return scalar_call(tree, name, scalar, args)

    def argument(self, tree: ast.expr, name: str, expected: Type | None, depth: int) -> Node:
        """An argument of a function, of the type it takes."""
        node = self.check(tree, depth)
        if expected and node.type != expected:
            raise wrong_type(f"an argument of {name}", node.type, expected)
        return node

    def _typed(self, tree: ast.expr, expected: Type, depth: int) -> Node:
        node = self.check(tree, depth)
        if node.type != expected:
            raise wrong_type(ast.unparse(tree), node.type, expected)
        return node
