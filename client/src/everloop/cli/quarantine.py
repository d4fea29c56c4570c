"""`everloop quarantine`: records that broke their contract, and how they go back or are put away."""

import asyncio
import getpass
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.durations import parse_duration

from everloop.cli.kafka_records import kafka_of, readable
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName
from everloop.cli.output import console, print_json, table
from everloop.cli.quarantine_views import decided, preview, reasons, report, set_aside_at, view
from everloop.errors import EverloopError, UsageError
from everloop.quarantine.entries import Entry, Wanted, open_entries, read_resolutions
from everloop.quarantine.outcomes import Outcome, watching
from everloop.quarantine.patches import read_patch
from everloop.quarantine.resolving import Order, Resolved, mended, resolve

__all__ = ["app"]

app = typer.Typer(help="The quarantine: records that broke their pipeline's contract.", no_args_is_help=True)

_SHOWN = 10
_LIST_LIMIT = 100

Reason = Annotated[str | None, typer.Option("--reason", help="Only records that broke this rule.")]
Source = Annotated[str | None, typer.Option("--source", help="Only records of this source.")]
Since = Annotated[
    str | None, typer.Option("--since", help="Set aside since then: 2h, 3d or an RFC 3339 time.")
]
Until = Annotated[str | None, typer.Option("--until", help="Set aside before then.")]
Ids = Annotated[list[str] | None, typer.Option("--id", help="Only this entry; may be repeated.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")]
All = Annotated[bool, typer.Option("--all", help="Also those that were resolved.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command(
    "list", epilog="Example: everloop quarantine list flight-delay --reason allowed-values --since 2h"
)
def list_(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = _LIST_LIMIT,
    all_: All = False,
    as_json: Json = False,
) -> None:
    """List what stands in quarantine, oldest first, with its reasons."""
    wanted = _wanted(reason, source, since, until, resolved=None if all_ else False)
    found = asyncio.run(_newest(kafka_of(data_dir), pipeline, wanted, limit))
    if as_json:
        print_json([view(entry) for entry in found])
        return
    rows = (
        (
            one.id,
            set_aside_at(one),
            one.event.source,
            one.event.kind,
            one.event.id,
            reasons(one)[:90],
            decided(one),
        )
        for one in found
    )
    columns = ("entry", "set aside", "source", "kind", "id", "reasons", "resolved")
    table(columns, rows, empty="Nothing is in quarantine.")


@app.command(epilog="Example: everloop quarantine count flight-delay --since 1d")
def count(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    all_: All = False,
    as_json: Json = False,
) -> None:
    """Count what stands in quarantine by reason, field and source: a record once for each of its reasons."""
    wanted = _wanted(reason, source, since, until, resolved=None if all_ else False)
    records, counts = asyncio.run(_count(kafka_of(data_dir), pipeline, wanted))
    rows = [
        {"reason": key[0], "field": key[1], "source": key[2], "records": number}
        for key, number in counts.most_common()
    ]
    if as_json:
        print_json({"records": records, "reasons": rows})
        return
    table(("reason", "field", "source", "records"), map(dict.values, rows), empty="Nothing is in quarantine.")  # type: ignore[arg-type]  # four cells each
    if records:
        console.print(f"{records} records")


@app.command(epilog="Example: everloop quarantine show flight-delay 2-1178")
def show(
    pipeline: PipelineName,
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="As `quarantine list` shows it.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    as_json: Json = False,
) -> None:
    """Show one record: each reason with what to do, its headers, its bytes, and what was decided."""
    wanted = Wanted(ids=frozenset([entry]), resolved=None)
    found = asyncio.run(_first(kafka_of(data_dir), pipeline, wanted))
    if found is None:
        raise EverloopError(
            f"{pipeline} has no entry {entry}.", f"See: everloop quarantine list {pipeline} --all"
        )
    if as_json:
        print_json({**view(found), "data_base64": found.event.data_base64, "headers": found.event.headers})
        return
    for violation in found.event.violations:
        told = f"{violation.field or 'record'}: {violation.rule}: {violation.value!r}; {violation.mend}"
        console.print(told, markup=False)
    console.print(
        f"set aside {set_aside_at(found)}, source {found.event.source}, {decided(found) or 'waiting'}",
        markup=False,
    )
    for name, value in mended(found, None)[1]:
        console.print(f"{name}: {readable(value)}", markup=False)
    console.print(readable(found.data), markup=False)


@app.command(
    epilog="Example: everloop quarantine replay flight-delay --reason allowed-values --patch mend.json"
)
def replay(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    ids: Ids = None,
    limit: Limit = None,
    patch: Annotated[
        Path | None, typer.Option(help="A JSON patch (RFC 6902) or merge patch (RFC 7396).")
    ] = None,
    why: Annotated[str, typer.Option("--why", help="Kept with the decision.")] = "",
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what becomes of them.")] = 30,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Send records again, as they came or mended, each once however often this is run.

    Exit 1 if one of them is refused again.
    """
    wanted = _wanted(reason, source, since, until, ids=ids)
    change = read_patch(patch) if patch else None
    order = Order("replayed", getpass.getuser(), why, change, limit)
    if dry_run:
        preview(kafka_of(data_dir), pipeline, wanted, order, as_json=as_json)
        return
    done, outcomes = asyncio.run(_replay(kafka_of(data_dir), pipeline, wanted, order, wait))
    report(pipeline, order, done, outcomes, as_json=as_json)


@app.command(epilog='Example: everloop quarantine discard flight-delay --source test --why "test data"')
def discard(
    pipeline: PipelineName,
    why: Annotated[str, typer.Option("--why", help="Kept with the decision.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    ids: Ids = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put records away: they stay on the topic until it forgets them, and are listed no more."""
    wanted = _wanted(reason, source, since, until, ids=ids)
    order = Order("discarded", getpass.getuser(), why, None, limit)
    if dry_run:
        preview(kafka_of(data_dir), pipeline, wanted, order, as_json=as_json)
        return
    done = asyncio.run(resolve(kafka_of(data_dir), pipeline, wanted, order))
    if as_json:
        print_json({"batch": order.batch, "discarded": done.ids})
        return
    console.print(f"{len(done.ids)} records were discarded." if done.ids else "There is nothing to discard.")


@app.command(epilog="Example: everloop quarantine history flight-delay")
def history(pipeline: PipelineName, data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False) -> None:
    """Show who sent what again or put it away, when and why: a line for each run of a command."""
    resolutions = asyncio.run(read_resolutions(kafka_of(data_dir), pipeline)).values()
    counts = Counter(one.batch for one in resolutions)
    firsts = {one.batch: one for one in sorted(resolutions, key=lambda one: one.resolved_at, reverse=True)}
    runs = [
        {
            "at": one.resolved_at.isoformat(timespec="seconds"),
            "by": one.by,
            "action": one.action,
            "records": counts[one.batch],
            "patch_sha256": one.patch_sha256,
            "reason": one.reason,
            "batch": one.batch,
        }
        for one in sorted(firsts.values(), key=lambda one: one.resolved_at)
    ]
    if as_json:
        print_json(runs)
        return
    rows = ((run["at"], run["by"], run["action"], run["records"], run["reason"]) for run in runs)
    table(("at", "who", "did", "records", "why"), rows, empty="Nothing was resolved yet.")


def _wanted(
    reason: str | None,
    source: str | None,
    since: str | None,
    until: str | None,
    *,
    ids: list[str] | None = None,
    resolved: bool | None = False,
) -> Wanted:
    chosen = frozenset(ids) if ids else None
    return Wanted(reason, source, _moment(since), _moment(until), chosen, resolved)


def _moment(text: str | None) -> datetime | None:
    """A time, or how long ago it was."""
    if text is None:
        return None
    try:
        ago: timedelta = parse_duration(text)
        return datetime.now(UTC) - ago
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time.", "Write 2h, 3d or 2026-01-04T12:00:00Z.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def _newest(kafka: KafkaSettings, pipeline: str, wanted: Wanted, limit: int) -> list[Entry]:
    """In memory are twice as many as asked for, without their data."""
    found: list[Entry] = []
    async for entry in await open_entries(kafka, pipeline, wanted):
        found.append(entry.without_data())
        if len(found) >= 2 * limit:
            found = _last(found, limit)
    return _last(found, limit)


def _last(found: list[Entry], limit: int) -> list[Entry]:
    return sorted(found, key=lambda entry: (entry.event.quarantined_at, entry.id))[-limit:]


async def _count(
    kafka: KafkaSettings, pipeline: str, wanted: Wanted
) -> tuple[int, Counter[tuple[str, str, str]]]:
    records, counts = 0, Counter[tuple[str, str, str]]()
    async for entry in await open_entries(kafka, pipeline, wanted):
        event = entry.event
        broken = {(one.rule, one.field or "record") for one in event.violations}
        broken = broken or {(event.reason, "record")}
        counts.update((rule, name, event.source or "-") for rule, name in broken)
        records += 1
    return records, counts


async def _first(kafka: KafkaSettings, pipeline: str, wanted: Wanted) -> Entry | None:
    async for entry in await open_entries(kafka, pipeline, wanted):
        return entry
    return None


async def _replay(
    kafka: KafkaSettings, pipeline: str, wanted: Wanted, order: Order, wait: float
) -> tuple[Resolved, Mapping[str, Outcome]]:
    async with watching(kafka, pipeline) as watch:
        done = await resolve(kafka, pipeline, wanted, order)
        return done, await watch.outcomes(done.ids, wait) if done.ids else {}
