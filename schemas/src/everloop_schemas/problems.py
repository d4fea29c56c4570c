"""What is wrong with a file that a person wrote: where, which rule, and how to mend it."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import ErrorDetails

__all__ = ["Path", "Problem", "dotted", "from_pydantic", "suggest", "with_lines"]

Path = tuple[str | int, ...]
"""Where a value stands: keys and list positions from the top."""
KnownKeys = Callable[[Path], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: `line` from 1 (0: not known), `field` a dotted path, `rule` a stable code."""

    file: str
    line: int
    field: str
    rule: str
    message: str
    mend: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field or 'file'}: {self.message} [{self.rule}]; {self.mend}"


def dotted(path: Path) -> str:
    """Write a path as people do.

    Example:
        >>> dotted(("gates", 0, "metric"))
        'gates[0].metric'
    """
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def with_lines(problems: Iterable[Problem], lines: Mapping[Path, int], file: str) -> list[Problem]:
    """Fill in file and line of problems that know only their field: the nearest place that exists."""
    by_field = {dotted(path): line for path, line in lines.items()}
    return [
        replace(problem, file=file, line=problem.line or _line(problem.field, by_field))
        for problem in problems
    ]


def _line(field: str, by_field: Mapping[str, int]) -> int:
    while field and field not in by_field:
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return by_field.get(field, 1)


_FIXED = {
    "missing": ("required", "is required and not there", "add it"),
    "string_type": ("type", "must be text", "put quotes around it"),
    "int_type": ("type", "must be a whole number", "write digits without quotes"),
    "int_from_float": ("type", "must be a whole number", "write digits without a fraction"),
    "float_type": ("type", "must be a number", "write a number without quotes"),
    "finite_number": ("type", "must be a finite number", "write a number"),
    "bool_type": ("type", "must be true or false", "write true or false, without quotes"),
    "list_type": ("type", "must be a list", "write [a, b], or one '- item' a line"),
    "dict_type": ("type", "must be a mapping", "write 'key: value' lines, indented"),
    "model_type": ("type", "must be a mapping", "write 'key: value' lines, indented"),
    "too_short": ("too-few", "has too few entries", "add at least one"),
    "string_too_short": ("required", "is empty", "fill it in"),
}
_PATTERN_MEND = (
    "use letters, digits and '_' (a pipeline's name: a-z, 0-9 and '-'), a letter first, at most 63"
)
_LIMITS = {
    "greater_than": ("min", "must be greater than {gt}"),
    "greater_than_equal": ("min", "must be at least {ge}"),
    "less_than": ("max", "must be less than {lt}"),
    "less_than_equal": ("max", "must be at most {le}"),
    "string_too_long": ("max", "may have at most {max_length} characters"),
    "too_long": ("too-many", "may have at most {max_length} entries"),
}


def from_pydantic(error: ErrorDetails, known_keys: KnownKeys) -> Problem:
    """Say what pydantic found in our words; `known_keys` gives the keys that a mapping may have."""
    path = tuple(step for step in error["loc"] if step != "[key]")
    rule, message, mend = _explain(error, path, known_keys)
    return Problem("", 0, dotted(path), rule, message, mend)


def _explain(error: ErrorDetails, path: Path, known_keys: KnownKeys) -> tuple[str, str, str]:
    kind, context, value = error["type"], error.get("ctx", {}), repr(error["input"])[:60]
    if kind in _FIXED:
        rule, message, mend = _FIXED[kind]
        return rule, message if rule == "required" else f"{message}, not {value}", mend
    if kind == "extra_forbidden":
        mend = suggest(str(path[-1]), known_keys(path[:-1]))
        return "unknown-key", f"there is no key '{path[-1]}' here", mend
    if kind in _LIMITS:
        rule, template = _LIMITS[kind]
        message = f"{template.format_map(context)}; it is {value}"
        return rule, message, "change the value"
    if kind == "literal_error":
        return "allowed-values", f"{value} is none of the allowed values", f"write {context['expected']}"
    if kind == "string_pattern_mismatch":
        return "name", f"{value} is no valid name", _PATTERN_MEND
    return kind, error["msg"], _own_mend(context)


def _own_mend(context: Mapping[str, Any]) -> str:
    return str(context.get("mend", "see the pipeline file's reference"))


def suggest(key: str, known: Sequence[str]) -> str:
    """What to write instead of a name that does not exist."""
    close = difflib.get_close_matches(key, known, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"use one of: {', '.join(known)}" if known else "take it out"
