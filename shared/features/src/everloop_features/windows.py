"""The keyword arguments of windowed aggregates."""

import ast
import re
from typing import Literal

from everloop_features.problems import ExpressionError

__all__ = ["keyword_names", "over_what", "window_us"]

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_WINDOW = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_LONGEST_SECONDS = 10 * 366 * 86_400


def keyword_names(tree: ast.Call) -> set[str]:
    """Names of a call's keyword arguments; `**` counts as the name `**`."""
    return {word.arg or "**" for word in tree.keywords}


def window_us(tree: ast.Call, name: str) -> int:
    """The window in microseconds: whole seconds, so that each of the 32 panes is a whole number of them."""
    unknown = keyword_names(tree) - {"window", "by", "over"}
    if unknown:
        raise ExpressionError("arguments", f"{name} has no argument {sorted(unknown)}", "remove it")
    value = next((word.value for word in tree.keywords if word.arg == "window"), None)
    text = value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""
    parts = _WINDOW.fullmatch(text)
    if parts is None:
        raise ExpressionError("window", f"{name} needs a window", "write window='1h' (s, m, h, d or w)")
    seconds = int(parts[1]) * _SECONDS[parts[2]]
    if seconds > _LONGEST_SECONDS:
        raise ExpressionError("window", f"a window of {text} is too long", "use at most ten years")
    return seconds * 1_000_000


def over_what(tree: ast.Call) -> Literal["observations", "labels"]:
    """Which records an aggregate is over; observations unless it says labels."""
    value = next((word.value for word in tree.keywords if word.arg == "over"), None)
    match value:
        case None | ast.Name(id="observations"):
            return "observations"
        case ast.Name(id="labels"):
            return "labels"
        case _:
            raise ExpressionError("over", "over is neither observations nor labels", "write over=labels")
