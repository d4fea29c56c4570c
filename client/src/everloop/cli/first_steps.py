"""`everloop init`: a pipeline file from a sample of the data."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everloop.cli.output import console
from everloop.errors import EverloopError, UsageError

if TYPE_CHECKING:
    from everloop.first_steps import Plan

__all__ = ["add_to"]

_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop init --from flights.csv --name flight-delay")(init)


def init(
    sample: Annotated[
        Path, typer.Option("--from", help="A CSV or Parquet file; its first line names columns.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the pipeline file; - prints it.")
    ] = Path("pipeline.yaml"),
    *,
    name: Annotated[str | None, typer.Option(help="The pipeline's name; by default the file's.")] = None,
    label: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    time: Annotated[str | None, typer.Option(help="The column that says when it happened.")] = None,
    key: Annotated[str | None, typer.Option(help="The column that groups the rows.")] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The column with each row's id.")] = None,
    records: Annotated[
        Path | None, typer.Option(help="Also write the rows as records to publish, in this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Draft a commented pipeline file from a sample: types, ranges, categories, key, label, features."""
    _require_free(output, force=force)
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no pipeline's name.", "Use lower-case letters, digits and '-'.")
    try:
        # pandas takes most of a second to import, and the other commands do without it
        from everloop import first_steps  # noqa: PLC0415
    except ImportError as error:
        raise EverloopError(
            f"{error.name} is not installed.", "Install the extra: everloop[frames]."
        ) from error
    wishes = first_steps.Wishes(id=id_, time=time, key=key, label=label)
    found = first_steps.take_sample(first_steps.open_source(sample))
    plan = first_steps.plan_of(found, name or first_steps.pipeline_name(sample.stem), wishes)
    text = first_steps.text_of(plan)
    if str(output) == "-":
        print(text, end="")
    else:
        _write(output, text)
        _tell(plan, output)
    if records is not None:
        written = first_steps.write_records(plan, records)
        gaps = f"; {written.without_time} rows without a time are left out" if written.without_time else ""
        _tell_of_records(plan, records, f"{written.observations} observations, {written.labels} labels{gaps}")


def _require_free(output: Path, *, force: bool) -> None:
    if str(output) != "-" and output.exists() and not force:
        raise EverloopError(f"{output} exists already.", "Name another file with --output, or add --force.")


def _write(output: Path, text: str) -> None:
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise EverloopError(f"{output} cannot be written: {error}", "Name another file.") from error


def _tell(plan: "Plan", output: Path) -> None:
    roles = plan.roles
    label = roles.label.header if roles.label else "none found; name it with --label"
    time = roles.time.header if roles.time else "none found; name it with --time"
    key = roles.key.header if roles.key else "none found; name it with --key"
    console.print(f"{output}: the pipeline {plan.name}, {len(plan.features)} features.", markup=False)
    console.print(f"label: {label} · event time: {time} · key: {key}", markup=False)
    console.print(f"Read its comments, fill in the units, then: everloop check {output}", markup=False)


def _tell_of_records(plan: "Plan", folder: Path, count: str) -> None:
    console.print(f"{folder}: {count}. Once the pipeline is applied:", markup=False)
    for kind in ("observations", "labels"):
        path = folder / f"{kind}.ndjson"
        console.print(f"  everloop publish {plan.name} {kind} {path} --source history", markup=False)
