"""`everloop approve`, `reject`, `rollback`, `pin`, `train` and `verify`: what people decide."""

import json
from typing import Annotated, Any

import typer

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName, Reason, Version
from everloop.cli.output import console, print_json
from everloop.client import Client
from everloop.errors import EverloopError, UsageError

__all__ = ["add_to"]

Parameters = Annotated[
    str, typer.Option("--parameters", "-p", help="JSON object of model parameters for this run alone.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop approve flight-delay 3 -r 'looks right'")(approve)
    app.command(epilog="Example: everloop reject flight-delay 3 -r 'trained on broken weather'")(reject)
    app.command(epilog="Example: everloop rollback flight-delay -r 'complaints since noon'")(rollback)
    app.command(epilog="Example: everloop pin flight-delay 1 -r 'to compare with'")(pin)
    app.command(epilog="Example: everloop train flight-delay -p '{\"trees\": 50}'")(train)
    app.command(epilog="Example: everloop verify flight-delay 3")(verify)


def approve(
    pipeline: PipelineName,
    version: Version,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = "approved on the command line",
    override: Annotated[bool, typer.Option("--override", help="Although gates failed.")] = False,
) -> None:
    """Approve a model version; serving swaps to it."""
    with Client(data_dir=data_dir) as client:
        _print_deployment(client.approve(pipeline, version, reason, override=override))


def reject(
    pipeline: PipelineName,
    version: Version,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = "rejected on the command line",
) -> None:
    """Refuse a model version; if it is being served, the one before takes its place."""
    with Client(data_dir=data_dir) as client:
        _print_deployment(client.reject(pipeline, version, reason))


def rollback(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = "rolled back on the command line",
) -> None:
    """Serve the previous champion again."""
    with Client(data_dir=data_dir) as client:
        _print_deployment(client.roll_back(pipeline, reason))


def pin(
    pipeline: PipelineName,
    version: Version,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Let it go again.")] = False,
    reason: Reason = "pinned on the command line",
) -> None:
    """Keep a version loaded, to be asked by its number."""
    with Client(data_dir=data_dir) as client:
        found = client.unpin(pipeline, version) if remove else client.pin(pipeline, version, reason)
    _print_deployment(found)


def train(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Reason = "asked for on the command line",
    parameters: Parameters = "{}",
) -> None:
    """Start a training run now, or as soon as the active one has ended."""
    try:
        chosen = json.loads(parameters)
    except ValueError as error:
        raise UsageError(
            f"--parameters is no JSON: {error}", "Write for example: -p '{\"trees\": 50}'"
        ) from error
    with Client(data_dir=data_dir) as client:
        found = client.train(pipeline, reason, chosen)
    console.print(f"Run {found['run_id']}; follow it with: everloop runs {pipeline}")


def verify(
    pipeline: PipelineName, version: Version, data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False
) -> None:
    """Rebuild a version's dataset and model from the log and compare SHA-256s; exit 1 if one differs."""
    with Client(data_dir=data_dir) as client:
        found = client.verify(pipeline, version)
    if as_json:
        print_json(found)
    for part in ("dataset", "artifact"):
        if not as_json:
            console.print(_comparison(part, found[part]))
    if not (found["dataset"]["equal"] and found["artifact"]["equal"]):
        why = found.get("problem") or "the rebuilt bytes differ"
        raise EverloopError(
            f"Version {version} of {pipeline} does not follow from its log: {why}",
            "Was the log's retention shortened, or are other library versions installed?",
        )


def _comparison(part: str, found: dict[str, Any]) -> str:
    if found["equal"]:
        return f"[green]equal[/green]   {part:<9}{found['recorded']}"
    return f"[red]differs[/red] {part:<9}{found['recorded']} was recorded, {found['rebuilt']} was rebuilt"


def _print_deployment(found: dict[str, Any]) -> None:
    champion = (found.get("champion") or {}).get("model_version", "none")
    pinned = [one["model_version"] for one in found.get("pinned", [])]
    console.print(
        f"{found['pipeline']}, revision {found['revision']}: champion {champion}, pinned {pinned or 'none'}"
    )
