"""`everloop test`: the tests that stand in a pipeline's file, run without any service."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import typer
from everloop_features.file_tests import Outcome, failures, run_tests
from everloop_schemas.pipeline import locate
from rich.markup import escape

from everloop.cli.files import File, read_file
from everloop.cli.options import Json
from everloop.cli.output import console, print_json
from everloop.errors import EverloopError

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("test", epilog="Example: everloop test flights.yaml")(run_file_tests)


def run_file_tests(file: File, *, as_json: Json = False) -> None:
    """Run the tests of a pipeline's file; exit 1 if a feature comes out otherwise than expected."""
    pipeline, compiled = read_file(file)
    outcomes = run_tests(pipeline, compiled)
    text = file.read_text("utf-8")
    if as_json:
        print_json({"pipeline": pipeline.pipeline, "tests": [_as_json(one) for one in outcomes]})
    else:
        _print(outcomes, text, str(file))
    failed = sum(not outcome.passed for outcome in outcomes)
    if failed:
        mend = "Correct the features or the expected values; `everloop apply` refuses the file as it is."
        raise EverloopError(f"{failed} of {len(outcomes)} tests failed.", mend)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {"passed": outcome.passed, **dataclasses.asdict(outcome)}


def _print(outcomes: Sequence[Outcome], text: str, filename: str) -> None:
    if not outcomes:
        console.print(f"{filename} holds no tests: add some under `tests:`.")
    for outcome in outcomes:
        mark = "[green]passed[/green]" if outcome.passed else "[red]failed[/red]"
        console.print(f"{mark} {escape(outcome.name)} ({outcome.compared} values)")
        lines = {problem.field: problem for problem in locate(failures([outcome]), text, filename)}
        for difference in outcome.differences:
            place = lines[difference.path]
            console.print(escape(f"  {place.file}:{place.line} {difference}"))
        for problem in outcome.problems:
            console.print(escape(f"  {lines[problem.field]}"))
