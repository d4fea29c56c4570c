"""`everloop check`, `explain` and `apply`: a pipeline's file."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from everloop_features import Compiled, compile_rules
from everloop_features import compile as compile_features
from everloop_features.file_tests import failures, run_tests
from everloop_schemas.pipeline import Pipeline, load, locate, to_definition

from everloop.changes import plan_apply
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json
from everloop.cli.output import console, print_json
from everloop.client import Client
from everloop.errors import EverloopError

__all__ = ["File", "add_to", "read_file"]

_NO_SEARCH = "training.search is kept but not carried out yet; training.model is taken as it stands"

File = Annotated[Path, typer.Argument(metavar="FILE", help="A pipeline's YAML file.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop check flights.yaml")(check)
    app.command(epilog="Example: everloop explain flights.yaml")(explain)
    app.command(epilog="Example: everloop apply flights.yaml")(apply)


def check(file: File) -> None:
    """Check a pipeline's file without any service: keys, types, rules, expressions, its own tests."""
    pipeline, compiled = read_file(file)
    _check_tests(file, pipeline, compiled)
    count, tests = len(compiled.names), len(pipeline.tests)
    passed = f"; its tests pass ({tests})" if tests else ""
    console.print(
        f"{file}: the pipeline {pipeline.pipeline} is well formed and has {count} features{passed}."
    )


def explain(file: File, *, as_json: Json = False) -> None:
    """Print a pipeline's file with every default filled in, and what its features are."""
    pipeline, compiled = read_file(file)
    definition = to_definition(pipeline)
    features = dict(zip(compiled.names, compiled.types, strict=True))
    if as_json:
        print_json({"definition": definition, "features": features, "needs_state": compiled.needs_state})
        return
    print(yaml.safe_dump(definition, sort_keys=False, allow_unicode=True))
    for name, kind in features.items():
        console.print(f"# {name}: {kind}")
    state = (
        "Its features look at earlier records"
        if compiled.needs_state
        else "Its features need no earlier record"
    )
    console.print(
        f"# {state}; the log has {pipeline.partitions} partitions by {', '.join(pipeline.partition_by)}."
    )


def apply(
    file: File,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change and what a replay would take.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a pipeline's file and make it the pipeline's current version."""
    pipeline, compiled = read_file(file)
    with Client(data_dir=data_dir) as client:
        if dry_run:
            _check_tests(file, pipeline, compiled)
            change = plan_apply(client, pipeline)
            print_json(dataclasses.asdict(change)) if as_json else console.print(str(change))
            return
        found = client.apply(file.read_text("utf-8"))
    if as_json:
        print_json(found)
    else:
        console.print(_outcome(found))


def _check_tests(file: Path, pipeline: Pipeline, compiled: Compiled) -> None:
    failed = failures(run_tests(pipeline, compiled))
    if failed:
        raise EverloopError("\n".join(map(str, locate(failed, file.read_text("utf-8"), str(file)))))


def _outcome(found: dict[str, Any]) -> str:
    name, version = found["pipeline"], found["version"]
    if found["outcome"] == "unchanged":
        return f"{name} is unchanged: version {version}."
    return f"{name} has version {version} now. Send data: everloop publish {name} observations FILE"


def read_file(file: Path) -> tuple[Pipeline, Compiled]:
    """A pipeline's file, checked and compiled. Raises EverloopError with every problem in it."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EverloopError(f"{file} cannot be read: {error}", "Name a UTF-8 file.") from error
    pipeline = load(text, str(file))
    if isinstance(pipeline, list):
        raise EverloopError("\n".join(map(str, pipeline)))
    compiled = compile_features(pipeline)
    if isinstance(compiled, list):
        raise EverloopError("\n".join(map(str, locate(compiled, text, str(file)))))
    if isinstance(broken := compile_rules(pipeline), list):
        raise EverloopError("\n".join(map(str, locate(broken, text, str(file)))))
    if pipeline.training.search is not None:
        print(f"note: {file}: {_NO_SEARCH}", file=sys.stderr)
    return pipeline, compiled
