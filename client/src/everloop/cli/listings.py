"""`everloop pipelines`, `models`, `runs`, `history` and `performance`: what there is."""

from typing import Any

import typer

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName, Wait, WaitSeconds
from everloop.cli.output import console, print_json, table, tell_waiting, when
from everloop.client import Client
from everloop.standing import standing, wait_for_model

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop pipelines")(pipelines)
    app.command(epilog="Example: everloop models flight-delay")(models)
    app.command(epilog="Example: everloop runs flight-delay --json")(runs)
    app.command(epilog="Example: everloop history flight-delay")(history)
    app.command(epilog="Example: everloop performance flight-delay")(performance)


def pipelines(data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False) -> None:
    """List the pipelines."""
    with Client(data_dir=data_dir) as client:
        found = client.pipelines()
    if as_json:
        print_json(found)
        return
    rows = (
        (one["pipeline"], one["version"], one["partitions"], when(one["defined_at"]), one["defined_by"])
        for one in found
    )
    table(
        ("pipeline", "version", "partitions", "defined", "by"),
        rows,
        empty="No pipeline yet: everloop apply FILE",
    )


def models(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    wait: Wait = False,
    timeout: WaitSeconds = 300.0,
    as_json: Json = False,
) -> None:
    """List a pipeline's model versions: stage, trigger, metrics, gates that failed."""
    with Client(data_dir=data_dir) as client:
        if wait:
            wait_for_model(client, pipeline, None, timeout, tell_waiting)
        found = client.models(pipeline)
        empty = "" if found or as_json else f"No model yet: {standing(client, pipeline)}."
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one["model_version"],
            one["stage"],
            one["trigger"],
            when(one["trained_at"]),
            _metrics(one),
            _failed(one),
        )
        for one in found
    )
    table(("version", "stage", "trigger", "trained", "metrics", "gates"), rows, empty=empty)


def runs(pipeline: PipelineName, data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False) -> None:
    """List a pipeline's training runs, each with what triggered it, and why it failed if it did."""
    with Client(data_dir=data_dir) as client:
        found = client.runs(pipeline)
        empty = (
            "" if found else f"No run yet: {standing(client, pipeline)}."
        )  # also tells an unknown pipeline
    if as_json:
        print_json(found)
        return
    rows = (
        (
            one["run_id"][:13],
            one["state"],
            one["trigger"]["kind"],
            one["trigger"]["reason"],
            one["model_version"],
            one["verdict"],
        )
        for one in found
    )
    table(("run", "state", "trigger", "reason", "model", "verdict"), rows, empty=empty)
    for one in found:
        if failed := one.get("failed"):
            why = f"{one['run_id'][:13]} failed: {failed['reason']}. {failed['mend']}."
            console.print(why, markup=False)


def history(pipeline: PipelineName, data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False) -> None:
    """Show who decided what, newest first, and whether the chain of entries is intact."""
    with Client(data_dir=data_dir) as client:
        found = client.history(pipeline)
    if as_json:
        print_json(found)
        return
    rows = (
        (one["sequence"], when(one["at"]), one["actor"], one["action"], one["model_version"])
        for one in found["entries"]
    )
    table(("entry", "at", "who", "did", "model"), rows, empty="Nothing was decided yet.")


def performance(
    pipeline: PipelineName, data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False
) -> None:
    """Show live figures by day and model version, from predictions whose outcome is known."""
    with Client(data_dir=data_dir) as client:
        found = client.performance(pipeline)
    if as_json:
        print_json(found)
        return
    days = found["days"]
    columns = tuple(days[0]) if days else ("day",)
    table(
        columns, (tuple(one.get(name) for name in columns) for one in days), empty="No outcome is known yet."
    )


def _metrics(model: dict[str, Any]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in model["metrics"].items())


def _failed(model: dict[str, Any]) -> str:
    failed = [f"{gate['name']}: {gate['reason']}" for gate in model["gates"] if not gate["passed"]]
    if not model["gates"]:
        return "not judged yet"
    return "; ".join(failed) or "all passed"
