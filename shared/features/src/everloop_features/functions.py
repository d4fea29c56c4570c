"""Every function a user can call: the types of its arguments, how many, its constants and its result."""

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from everloop_features import literals
from everloop_features.nodes import Type

__all__ = ["AGGREGATES", "CALENDAR", "SCALARS", "Scalar"]

CALENDAR = ("minute", "hour", "weekday", "is_weekend", "month", "day_of_year", "is_holiday")
"""Functions of the wall clock: they take a time zone."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A function of single values.

    The arguments' types come first (None: any type); with `many`, the last may be repeated, with `optional`
    it may be left out. Then come as many constants as `constants` says (at least, at most); `read` gives
    their value. A result of None is the first argument's type, which all arguments then have.
    """

    arguments: tuple[Type | None, ...]
    result: Type | None
    many: bool = False
    optional: bool = False
    constants: tuple[int, int] = (0, 0)
    read: Callable[[Sequence[ast.expr]], Any] | None = None
    words: tuple[str, ...] = ()

    @property
    def least(self) -> int:
        """The fewest arguments."""
        return len(self.arguments) - self.optional + self.constants[0]

    @property
    def most(self) -> int | None:
        """The most arguments; None: any number."""
        return None if self.many else len(self.arguments) + self.constants[1]


def _of(argument: Type, result: Type, **more: Any) -> Scalar:
    return Scalar((argument,), result, **more)


_NUMBER, _TEXT = _of("number", "number"), _of("category", "category")
_TWO_TEXTS = Scalar(("category", "category"), "boolean")

SCALARS: dict[str, Scalar] = {
    **dict.fromkeys(
        ("abs", "sign", "ceil", "floor", "exp", "log", "log2", "log10", "log1p", "sqrt"), _NUMBER
    ),
    **dict.fromkeys(("sin", "cos", "tan", "tanh"), _NUMBER),
    "round": _of("number", "number", constants=(0, 1), read=literals.digits),
    "pow": Scalar(("number", "number"), "number"),
    "clip": Scalar(("number", "number", "number"), "number"),
    "min": Scalar(("number", "number"), "number", many=True),
    "max": Scalar(("number", "number"), "number", many=True),
    "sin_of": _of("number", "number", constants=(1, 1), read=literals.period),
    "cos_of": _of("number", "number", constants=(1, 1), read=literals.period),
    "is_null": Scalar((None,), "boolean"),
    "coalesce": Scalar((None, None), None, many=True),
    "concat": Scalar(("category", "category"), "category", many=True),
    **dict.fromkeys(("lower", "upper", "strip"), _TEXT),
    "length": _of("category", "number"),
    **dict.fromkeys(("startswith", "endswith", "contains"), _TWO_TEXTS),
    "left": _of("category", "category", constants=(1, 1), read=literals.characters),
    "right": _of("category", "category", constants=(1, 1), read=literals.characters),
    "replace": _of("category", "category", constants=(2, 2), read=literals.replacement),
    "bucket": _of("number", "category", constants=(1, 1), read=literals.edges),
    "hash_bucket": Scalar((None,), "category", constants=(1, 1), read=literals.buckets),
    **{name: _of("timestamp", "number", words=("tz",)) for name in CALENDAR},
    "is_weekend": _of("timestamp", "boolean", words=("tz",)),
    "is_holiday": _of("timestamp", "boolean", constants=(1, 1), read=literals.country, words=("tz",)),
    "age": Scalar(("timestamp", "timestamp"), "number", optional=True, words=("unit",)),
    "haversine": Scalar(("number",) * 4, "number", words=("unit",)),
}

AGGREGATES: dict[str, tuple[tuple[Type, ...] | None, int, int]] = {
    "count": (None, 0, 1),
    "sum": (("number", "boolean"), 1, 1),
    "mean": (("number", "boolean"), 1, 1),
    "std": (("number",), 1, 1),
    "min": (("number",), 1, 1),
    "max": (("number",), 1, 1),
    "first": (("number", "boolean", "category"), 1, 1),
    "last": (("number", "boolean", "category"), 1, 1),
    "distinct": (("number", "boolean", "category"), 1, 1),
    "ratio": (("number", "boolean"), 1, 2),
    "quantile": (("number",), 2, 2),
    "ewma": (("number", "boolean"), 1, 1),
    "time_since": (None, 0, 1),
}
"""Types of the operand (None: any), the fewest and the most arguments."""
