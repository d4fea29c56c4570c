"""Checks of single pieces of syntax; each raises ExpressionError with its rule and mend."""

import ast
import math

from everloop_features.calculation import zone
from everloop_features.functions import Scalar
from everloop_features.nodes import Node, Type
from everloop_features.problems import ExpressionError
from everloop_features.windows import keyword_names

__all__ = [
    "compared",
    "constant",
    "digits",
    "expect_arguments",
    "fold",
    "is_finite",
    "membership",
    "not_allowed",
    "same_type",
    "wrong_type",
    "zone_name",
]

MOST_DIGITS = 15

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


def is_finite(value: float) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def compared(operator: ast.cmpop, left: Node, right: Node) -> Node:
    """One comparison of two nodes of one type."""
    op = _COMPARISONS.get(type(operator))
    if op is None:
        raise ExpressionError("not-allowed", "`is` is no comparison here", "use == or is_null(x)")
    same_type("the two sides of a comparison", left, right)
    if op not in ("equal", "not_equal") and left.type not in ("number", "timestamp"):
        raise ExpressionError("type", f"a {left.type} has no order", "compare it with == or in")
    return Node(op, "boolean", (left, right))


def membership(left: Node, tree: ast.expr, *, positive: bool) -> Node:
    """`in` or `not in` a list of constants."""
    choices = tree.elts if isinstance(tree, ast.List | ast.Tuple | ast.Set) else []
    if not choices or not all(isinstance(choice, ast.Constant) for choice in choices):
        raise ExpressionError("arguments", "`in` needs a list of constants", "write x in ['a', 'b']")
    nodes = [constant(choice) for choice in choices if isinstance(choice, ast.Constant)]
    for node in nodes:
        same_type("a value and its list", left, node)
    return Node("in" if positive else "not_in", "boolean", (left,), frozenset(node.value for node in nodes))


def fold(op: str, result: Type, parts: list[Node]) -> Node:
    """A binary operation over any number of parts, from the left."""
    folded = parts[0]
    for part in parts[1:]:
        folded = Node(op, result, (folded, part))
    return folded


def digits(tree: ast.Call) -> int:
    """The second argument of round, 0 without one."""
    match tree.args[1:]:
        case []:
            return 0
        case [ast.Constant(value=int(digits))] if not isinstance(digits, bool) and 0 <= digits <= MOST_DIGITS:
            return digits
        case _:
            raise ExpressionError("arguments", "round's digits are no constant", f"write 0 to {MOST_DIGITS}")


def zone_name(tree: ast.expr | None) -> str:
    """The time zone of a calendar function, UTC without one."""
    if tree is None:
        return "UTC"
    if not isinstance(tree, ast.Constant) or not isinstance(tree.value, str):
        raise ExpressionError("arguments", "tz is no text", "write tz='America/New_York'")
    try:
        zone(tree.value)
    except KeyError as error:
        raise ExpressionError(
            "time-zone", f"{tree.value!r} is no time zone", "use an IANA name such as 'America/New_York'"
        ) from error
    return tree.value


def expect_arguments(tree: ast.Call, name: str, scalar: Scalar, words: set[str] | None = None) -> None:
    """Refuse too few, too many and unknown arguments."""
    unknown = keyword_names(tree) - (words or set())
    if unknown or any(isinstance(arg, ast.Starred) for arg in tree.args):
        raise ExpressionError("arguments", f"{name} has no argument {sorted(unknown)}", "remove it")
    count, most = len(tree.args), scalar.most
    if count < scalar.least or (most is not None and count > most):
        limit = f"{scalar.least}" if most == scalar.least else f"{scalar.least} to {most or 'any number'}"
        raise ExpressionError("arguments", f"{name} got {count} arguments", f"give it {limit}")


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
