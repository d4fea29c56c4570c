"""`everloop explain-vector`: each value of a logged vector with the records that made it."""

import dataclasses
from typing import Annotated, Any

import msgspec
import typer
from everloop_features.explain import AggregateSource
from rich.markup import escape
from rich.tree import Tree

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName
from everloop.cli.output import console, print_json
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.history.vectors import ExplainedVector, LoggedValue

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: everloop explain-vector flight-delay a1")(explain_vector)


def explain_vector(
    pipeline: PipelineName,
    observation_id: Annotated[str, typer.Argument(metavar="ID", help="The observation's id.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    version: Annotated[
        int | None, typer.Option(min=1, help="The vector of this pipeline version; without it, the newest.")
    ] = None,
    newest: Annotated[
        int, typer.Option(min=0, help="How many of an aggregate's records are listed; all are counted.")
    ] = 5,
    as_json: Json = False,
) -> None:
    """Show each value of a vector with the records that made it; exit 1 if the log gives another vector."""
    with Client(data_dir=data_dir) as client:
        found = client.explain_vector(pipeline, observation_id, version=version, newest=newest)
    if as_json:
        print_json(_as_json(found))
    else:
        console.print(_tree(found), soft_wrap=False)
    if not found.equal:
        raise EverloopError("The log does not give the logged vector again.", _why_unequal(found))


def _why_unequal(found: ExplainedVector) -> str:
    if found.missing_before is not None:
        return f"Kafka has dropped the log below offset {found.missing_before}: records may be missing."
    return "The log or the vector was changed outside the platform, or this version computes otherwise."


def _as_json(found: ExplainedVector) -> dict[str, Any]:
    values = [
        {"logged": value.logged, "equal": value.equal, **dataclasses.asdict(value.explained)}
        for value in found.values
    ]
    return {
        "pipeline": found.pipeline,
        "pipeline_version": found.pipeline_version,
        "partition": found.partition,
        "offset": found.offset,
        "equal": found.equal,
        "missing_before": found.missing_before,
        "observation": _observation(found),
        "values": values,
    }


def _observation(found: ExplainedVector) -> dict[str, Any]:
    record = found.observation
    return {
        "id": record.id,
        "event_time": record.event_time,
        "known_at": record.known_at,
        "fields": dict(record.fields),
    }


def _tree(found: ExplainedVector) -> Tree:
    record = found.observation
    tree = Tree(
        f"vector of [bold]{escape(record.id)}[/bold], {found.pipeline} version {found.pipeline_version}: "
        f"log partition {found.partition}, offset {found.offset}"
    )
    tree.add(f"happened {record.event_time.isoformat()}, known {record.known_at.isoformat()}")
    same = "[green]equal bit for bit[/green]" if found.equal else "[red]not equal[/red]"
    tree.add(f"computed again from the log: {same}")
    for value in found.values:
        _add_value(tree, value)
    return tree


def _add_value(tree: Tree, value: LoggedValue) -> None:
    explained = value.explained
    branch = tree.add(escape(f"{explained.feature} = {_text(value.logged)}   {explained.expression}"))
    if not value.equal:
        branch.add(f"[red]the log gives {escape(_text(explained.value))}[/red]")
    if explained.fields:
        branch.add(escape(", ".join(f"{name} = {_text(known)}" for name, known in explained.fields.items())))
    for source in explained.aggregates:
        _add_source(branch, source)


def _add_source(tree: Tree, source: AggregateSource) -> None:
    branch = tree.add(escape(f"{source.expression} = {_text(source.value)}, {_counted(source)}"))
    for one in source.newest:
        times = f"happened {one.event_time.isoformat()}, known {one.known_at.isoformat()}"
        branch.add(escape(f"offset {one.offset} {one.kind} {one.id}: {_text(one.value)}   {times}"))


def _counted(source: AggregateSource) -> str:
    """How many records, and how many of them are listed."""
    listed = f", the newest {len(source.newest)}:" if len(source.newest) < source.found else ""
    if source.records is None or source.records == source.found:
        return f"{source.found} records{listed}"
    return f"{source.records} records, {source.found} of them found one by one{listed}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
