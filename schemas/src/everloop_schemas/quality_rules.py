"""Rules of a pipeline file's `quality` section that look at more than one key."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from everloop_schemas.pipeline_parts import Expectation, FieldSpec
from everloop_schemas.problems import Path, Problem, dotted

if TYPE_CHECKING:
    from everloop_schemas.pipeline import Pipeline

__all__ = ["quality_problems"]

_WEEK: Final = timedelta(weeks=1)
_KEYS: Final = {
    "not_null": ({"field"}, {"mostly"}),
    "between": ({"field"}, {"mostly", "min", "max"}),
    "in_set": ({"field", "values"}, {"mostly"}),
    "row_count": (set[str](), {"min", "max"}),
    "volume": (set[str](), {"min", "max"}),
    "unique": (set[str](), {"mostly"}),
    "accepted": (set[str](), {"mostly"}),
    "fresh": ({"within"}, {"mostly"}),
}
"""For each expectation the keys that it needs, and those that it may have."""
_LIMITS: Final = {"min", "max"}


def quality_problems(pipeline: "Pipeline") -> Iterator[Problem]:
    """Every rule that the section breaks."""
    if pipeline.quality is None:
        return
    window = pipeline.quality.window
    if _WEEK % window:
        message = f"a week is no whole number of windows of {window}"
        yield _problem(("quality", "window"), "window", message, "write for example 10m, 30m, 1h, 6h or 1d")
    fields = {**pipeline.observation.fields, **pipeline.label.fields}
    for position, expectation in enumerate(pipeline.quality.expect):
        path: Path = ("quality", "expect", position)
        yield from _keys(path, expectation)
        yield from _field(path, expectation, fields)
        yield from _range(path, expectation)


def _problem(path: Path, rule: str, message: str, mend: str) -> Problem:
    return Problem("", 0, dotted(path), rule, message, mend)


def _keys(path: Path, wanted: Expectation) -> Iterator[Problem]:
    needed, allowed = _KEYS[wanted.expect]
    given = wanted.model_fields_set - {"expect", "on_broken"}
    for name in sorted(needed - given):
        yield _problem((*path, name), "required", f"{wanted.expect} needs {name}", f"add {name}")
    for name in sorted(given - needed - allowed):
        if getattr(wanted, name) is not None:
            yield _problem((*path, name), "goes-with", f"{wanted.expect} has no {name}", "take it out")
    if allowed >= _LIMITS and wanted.min is None and wanted.max is None:
        yield _problem(path, "required", f"{wanted.expect} needs min or max", "add one of them, or both")


def _field(path: Path, wanted: Expectation, fields: dict[str, FieldSpec]) -> Iterator[Problem]:
    if wanted.field is None:
        return
    spec = fields.get(wanted.field)
    if spec is None:
        message = f"there is no field '{wanted.field}'"
        yield _problem((*path, "field"), "unknown-field", message, f"use one of: {', '.join(fields)}")
    elif wanted.expect == "between" and spec.type not in ("number", "integer"):
        message = f"a {spec.type} is not between numbers"
        yield _problem((*path, "field"), "not-for-type", message, "name a number or an integer")
    elif wanted.expect == "in_set" and spec.type not in ("category", "string"):
        message = f"a {spec.type} is in no set of texts"
        yield _problem((*path, "field"), "not-for-type", message, "name a category or a string")


def _range(path: Path, wanted: Expectation) -> Iterator[Problem]:
    if wanted.min is not None and wanted.max is not None and wanted.min > wanted.max:
        message = f"max {wanted.max:g} is below min {wanted.min:g}"
        yield _problem((*path, "max"), "max", message, "swap them")
    if wanted.expect in {"row_count", "volume"} and any(
        limit is not None and limit < 0 for limit in (wanted.min, wanted.max)
    ):
        yield _problem(path, "min", f"a {wanted.expect} is never below zero", "write 0 or more")
