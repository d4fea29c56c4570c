"""`everloop backfill`: a pipeline's history, from files into its log."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName
from everloop.cli.output import bytes_text, console, print_json
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.history.backfill import Backfill, Plan
from everloop.history.records import HistoryFiles
from everloop.history.tables import Table

__all__ = ["add_to"]

_File = Annotated[Path | None, typer.Option("--labels", help="Labels in a file of their own.")]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: everloop backfill flight-delay --from 2013.parquet --source history")(
        backfill
    )


def backfill(
    pipeline: PipelineName,
    observations: Annotated[
        Path, typer.Option("--from", help="Observations: .parquet, .csv or .ndjson, one row each.")
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    labels: _File = None,
    label_time: Annotated[
        str | None, typer.Option(help="Labels stand beside the observations; this column is their time.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="The CloudEvents source, one of the pipeline's replay_sources.")
    ] = "history",
    rate: Annotated[float | None, typer.Option(min=1, help="At most so many records a second.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and send none.")] = False,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Send although rows break the contract: into quarantine.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Publish history in the order in which it became known; a rerun goes on where the last one stopped."""
    files = HistoryFiles(Table(observations), Table(labels) if labels else None, label_time)
    with Client(data_dir=data_dir) as client:
        work = client.backfill(pipeline, files, source=source, folder=data_dir / "backfill")
        plan = work.check(rate)
        if not as_json:
            _print_plan(plan, source)
        if plan.checked.refused and not (dry_run or keep_going):
            raise _refused(plan, "Nothing was sent. ")
        sent, seconds = (0, 0.0) if dry_run else _send(work, plan, rate, quiet=as_json)
    if as_json:
        print_json({**_as_json(plan), "dry_run": dry_run, "sent": sent, "seconds": seconds})
    elif not dry_run:
        console.print(f"{sent} records sent in {seconds:.0f} s; the log has each of them once.")
    if dry_run and plan.checked.refused:
        raise _refused(plan, "")


def _send(work: Backfill, plan: Plan, rate: float | None, *, quiet: bool) -> tuple[int, float]:
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet) as bar:
        task = bar.add_task("sent", total=plan.records, completed=plan.published)
        sent = work.send(rate, tell=lambda count: bar.update(task, completed=count))
    return sent, time.monotonic() - began


def _refused(plan: Plan, outcome: str) -> EverloopError:
    mend = "Mend the rows or the pipeline's file, or send the others and quarantine these: --keep-going."
    return EverloopError(f"{plan.checked.refused} of {plan.records} rows break the contract.", outcome + mend)


def _print_plan(plan: Plan, source: str) -> None:
    checked = plan.checked
    console.print(
        f"{checked.observations} observations and {checked.labels} labels, {bytes_text(checked.bytes)}; "
        f"{checked.refused} are refused; about {plan.seconds:.0f} s to send, from the source {escape(source)}"
    )
    if plan.published:
        console.print(f"{plan.published} of them were sent by an earlier run.")
    if plan.log_has_others:
        console.print("[yellow]The log holds records already: history comes after them, in the log.[/yellow]")
    for column in plan.unused_columns:
        console.print(escape(f"  left out: the column {column}"))
    for (kind, field, rule), count in sorted(checked.reasons.items()):
        console.print(escape(f"  {count} {kind}s: {field}: {rule}"))
    for one in checked.examples:
        first = one["violations"][0]
        told = f"{first['field'] or 'record'} is {first['value']} ({first['rule']}); {first['mend']}"
        console.print(escape(f"    {one['kind']} row {one['row'] + 1}: {told}"))


def _as_json(plan: Plan) -> dict[str, Any]:
    checked = plan.checked
    reasons = [
        {"kind": kind, "field": field, "rule": rule, "rows": count}
        for (kind, field, rule), count in sorted(checked.reasons.items())
    ]
    return {
        "observations": checked.observations,
        "labels": checked.labels,
        "bytes": checked.bytes,
        "estimated_seconds": plan.seconds,
        "refused": checked.refused,
        "reasons": reasons,
        "examples": checked.examples,
        "already_sent": plan.published,
        "unused_columns": plan.unused_columns,
        "log_has_others": plan.log_has_others,
    }
