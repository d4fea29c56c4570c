"""`everloop retract`: observations that were wrong, taken back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName, Reason
from everloop.cli.output import console, print_json
from everloop.client import Client
from everloop.errors import EverloopError, UsageError
from everloop.history.retractions import Retractions, Standing, ids_of

__all__ = ["add_to"]

_SHOWN = 5
_LONGEST_REASON = 500

_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Observations' ids.")]
_File = Annotated[
    Path | None,
    typer.Option(
        "--from",
        help="Ids: one a line, or a .csv, .parquet or .ndjson with a column id; - is standard input.",
    ),
]
_Source = Annotated[
    str | None, typer.Option(help="Only observations of this source; without ids: all of them.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(
        epilog="Example: everloop retract flight-delay --from ids.txt --reason 'sensor 7 was broken'"
    )(retract)


def retract(
    pipeline: PipelineName,
    reason: Reason,
    ids: _Ids = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    file: _File = None,
    source: _Source = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Retract the others where the log does not know some.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Withdraw observations: what is derived from here on goes without them. Repeating it changes nothing."""
    wanted = _wanted(ids, file, source)
    if not reason.strip() or len(reason) > _LONGEST_REASON:
        raise UsageError(
            f"A reason has 1 to {_LONGEST_REASON} characters.", "Say why: --reason 'sensor broken'"
        )
    with Client(data_dir=data_dir) as client, _bar(quiet=as_json) as bar:
        task = bar.add_task("reading the log", total=1.0)
        standing = client.find_observations(
            pipeline, wanted, source=source, tell=lambda share: bar.update(task, completed=share)
        )
        if standing.missing and not (keep_going or dry_run):
            raise _unknown(pipeline, standing, "Nothing was retracted. ")
        done = Retractions() if dry_run else _send(client, bar, pipeline, standing, reason)
    if as_json:
        print_json({"pipeline": pipeline, "dry_run": dry_run, **_as_json(standing, done, reason)})
    else:
        _print(standing, done, dry_run=dry_run)
    if done.refused:
        raise EverloopError(f"{len(done.refused)} retractions were refused.", "Mend that and run this again.")
    if standing.missing and not keep_going:
        raise _unknown(pipeline, standing, "")


def _wanted(ids: Sequence[str] | None, file: Path | None, source: str | None) -> list[str] | None:
    found = [*(ids or ()), *(ids_of(file) if file else ())]
    if not found and source is None:
        raise UsageError("Nothing was named.", "Give ids, --from FILE, or --source SOURCE.")
    return list(dict.fromkeys(found)) or None


def _bar(*, quiet: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    return Progress(*columns, console=console, disable=quiet, transient=True)


def _send(client: Client, bar: Progress, pipeline: str, standing: Standing, reason: str) -> Retractions:
    task = bar.add_task("retracting", total=len(standing.open))
    return client.retract(
        pipeline, standing.open, reason, tell=lambda count: bar.update(task, completed=count)
    )


def _unknown(pipeline: str, standing: Standing, outcome: str) -> EverloopError:
    some = ", ".join(standing.missing[:_SHOWN]) + (", …" if len(standing.missing) > _SHOWN else "")
    return EverloopError(
        f"The log of {pipeline} has no observation with {len(standing.missing)} of the ids: {some}.",
        f"{outcome}Mend the ids, or retract the others with --keep-going.",
    )


def _print(standing: Standing, done: Retractions, *, dry_run: bool) -> None:
    if standing.withdrawn:
        console.print(f"{len(standing.withdrawn)} were retracted before")
    if dry_run:
        console.print(f"{len(standing.open)} observations would be retracted")
    else:
        console.print(
            f"{done.sent} observations are retracted: what is derived from now on goes without them"
        )
    for one in standing.open[:_SHOWN]:
        key = ", ".join(f"{name}={value}" for name, value in one.key.items())
        console.print(f"  {one.id} of {one.source}, {key}", markup=False)
    if len(standing.open) > _SHOWN:
        console.print(f"  and {len(standing.open) - _SHOWN} more")
    for refused in done.refused[:_SHOWN]:
        console.print(f"  refused: {refused.get('id')}: {refused.get('reason')}", markup=False)


def _as_json(standing: Standing, done: Retractions, reason: str) -> dict[str, Any]:
    found = [{"id": one.id, "source": one.source, "key": one.key} for one in standing.open]
    return {
        "reason": reason,
        "observations": found,
        "retracted_before": standing.withdrawn,
        "missing": standing.missing,
        "retracted": done.sent,
        "refused": done.refused,
    }
