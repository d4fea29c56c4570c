"""Checks of single pieces of syntax; each raises ExpressionError with its rule and mend."""

import ast
from collections.abc import Sequence

from everloop_features.literals import a_number, is_finite
from everloop_features.nodes import Node, Type
from everloop_features.operations import operation
from everloop_features.problems import ExpressionError

__all__ = [
    "compared",
    "constant",
    "expect_arguments",
    "fold",
    "keyword",
    "keyword_names",
    "membership",
    "not_allowed",
    "same_type",
    "wrong_type",
]

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
}


def constant(tree: ast.Constant) -> Node:
    """A literal: a boolean, text or a finite number."""
    match tree.value:
        case bool() as value:
            return Node("constant", "boolean", value=value)
        case str() as value:
            return Node("constant", "category", value=value)
        case int() | float() as value if is_finite(value):
            return Node("constant", "number", value=float(value))
        case _:
            raise not_allowed(tree)


def compared(operator: ast.cmpop, left: Node, right: Node) -> Node:
    """One comparison of two nodes of one type."""
    op = _COMPARISONS.get(type(operator))
    if op is None:
        raise ExpressionError("not-allowed", "`is` is no comparison here", "use == or is_null(x)")
    same_type("the two sides of a comparison", left, right)
    if op not in ("equal", "not_equal") and left.type not in ("number", "timestamp"):
        raise ExpressionError("type", f"a {left.type} has no order", "compare it with == or in")
    return operation(op, "boolean", (left, right))


def membership(left: Node, tree: ast.expr, *, positive: bool) -> Node:
    """`in` or `not in` a list of constants."""
    choices = tree.elts if isinstance(tree, ast.List | ast.Tuple | ast.Set) else []
    found = [_choice(choice) for choice in choices]
    nodes = [node for node in found if node is not None]
    if not nodes or len(nodes) < len(found):
        raise ExpressionError("arguments", "`in` needs a list of constants", "write x in ['a', 'b']")
    for node in nodes:
        same_type("a value and its list", left, node)
    values = frozenset(node.value for node in nodes)
    return operation("in" if positive else "not_in", "boolean", (left,), values)


def _choice(tree: ast.expr) -> Node | None:
    number = a_number(tree)
    if number is not None:
        return Node("constant", "number", value=number)
    return constant(tree) if isinstance(tree, ast.Constant) else None


def fold(op: str, result: Type, parts: Sequence[Node]) -> Node:
    """A binary operation over any number of parts, from the left."""
    folded = parts[0]
    for part in parts[1:]:
        folded = operation(op, result, (folded, part))
    return folded


def keyword_names(tree: ast.Call) -> set[str]:
    """Names of a call's keyword arguments; `**` counts as the name `**`."""
    return {word.arg or "**" for word in tree.keywords}


def keyword(tree: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((word.value for word in tree.keywords if word.arg == name), None)


def expect_arguments(
    tree: ast.Call, name: str, counts: tuple[int, int | None], words: Sequence[str], usage: str = ""
) -> None:
    """Refuse too few, too many and unknown arguments; `counts` is (at least, at most)."""
    unknown = keyword_names(tree) - {*words}
    if unknown or any(isinstance(arg, ast.Starred) for arg in tree.args):
        raise ExpressionError("arguments", f"{name} has no argument {sorted(unknown)}", "remove it")
    (least, most), count = counts, len(tree.args)
    if count < least or (most is not None and count > most):
        limit = f"{least}" if most == least else f"{least} to {most or 'any number'}"
        raise ExpressionError("arguments", f"{name} got {count} arguments", usage or f"give it {limit}")


def same_type(what: str, left: Node, right: Node) -> None:
    """Refuse two nodes of different types."""
    if left.type != right.type:
        raise ExpressionError("type", f"{what} are {left.type} and {right.type}", "use one type")


def wrong_type(what: str, found: str, expected: str) -> ExpressionError:
    """The error for a node of another type than needed."""
    return ExpressionError("type", f"{what} is a {found}", f"a {expected} is needed")


def not_allowed(tree: ast.expr) -> ExpressionError:
    """The error for syntax outside the language."""
    return ExpressionError(
        "not-allowed", f"{ast.unparse(tree)!r} is not part of the language", "see the reference"
    )
