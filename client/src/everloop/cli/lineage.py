"""`everloop trace`: from one prediction back to the rows that trained its model."""

from http.client import NOT_FOUND
from typing import Annotated, Any

import typer
from rich.tree import Tree

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json
from everloop.cli.output import cell, console, print_json
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.refusals import RefusedError

__all__ = ["add_to", "follow_prediction"]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: everloop trace a1 --pipeline flight-delay")(trace)


def trace(
    prediction_id: Annotated[str, typer.Argument(help="The id that the prediction was asked with.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    pipeline: Annotated[str | None, typer.Option(help="Where several pipelines use the same id.")] = None,
    as_json: Json = False,
) -> None:
    """Print a prediction's lineage: model, run, trigger, dataset and cut, approvals, vector, observation."""
    with Client(data_dir=data_dir) as client:
        found = follow_prediction(client, prediction_id, pipeline)
    if as_json:
        print_json(found)
    else:
        console.print(_tree(found), soft_wrap=False)


def follow_prediction(client: Client, prediction_id: str, pipeline: str | None = None) -> dict[str, Any]:
    """Ask each service for its part: monitor, registry, trainer."""
    prediction = client.predictions(prediction_id, pipeline)[0]
    name, version = prediction["pipeline"], prediction["model_version"]
    model = client.model(name, version)
    return {
        "prediction": prediction,
        "model": {
            key: model[key] for key in ("model_version", "pipeline_version", "stage", "artifact", "metrics")
        },
        "run": _run(client, model),
        "trigger": model["trigger"],
        "dataset": model["dataset"],
        "approvals": {
            "gates": model["gates"],
            "decision": model["decision"],
            "decisions": model["decisions"],
        },
        "loads": model["loads"],
        "verify": f"everloop verify {name} {version}",
        **_observation(client, prediction),
    }


def _run(client: Client, model: dict[str, Any]) -> dict[str, Any]:
    try:
        run = client.run(model["run_id"])
    except EverloopError as error:
        return {"run_id": model["run_id"], "unknown": error.message}
    return {key: run[key] for key in ("run_id", "state", "cut", "pipeline_time", "attempts", "parameters")}


def _observation(client: Client, prediction: dict[str, Any]) -> dict[str, Any]:
    """The observation may never have been published: predictions need none."""
    name, version = prediction["pipeline"], prediction["pipeline_version"]
    try:
        found = client.observation(name, prediction["id"], version)
    except RefusedError as error:
        if error.status != NOT_FOUND:
            raise
        return {
            "vector": None,
            "observation": None,
            "label": None,
            "note": "its observation was not published",
        }
    return {key: found[key] for key in ("vector", "observation", "label")}


def _tree(found: dict[str, Any]) -> Tree:
    prediction, model, run, dataset = (found[key] for key in ("prediction", "model", "run", "dataset"))
    name, output = f"[bold]{prediction['id']}[/bold] of {prediction['pipeline']}", cell(prediction["output"])
    tree = Tree(f"prediction {name}: {output}")
    _add(tree, "answered", prediction, ("predicted_at", "arm", "label", "label_known_at", "trace_id"))
    of_model = _add(tree, f"model version {model['model_version']}", model, ("stage", "pipeline_version"))
    _add(of_model, "artifact", model["artifact"], ("sha256", "bytes"))
    of_run = _add(of_model, f"run {run['run_id']}", run, ("state", "pipeline_time", "unknown"))
    _add(of_run, "trigger", found["trigger"], ("kind", "reason", "event_id"))
    of_data = _add(of_run, "dataset", dataset, ("sha256", "rows", "first_event_time", "last_event_time"))
    of_data.add("cut: " + _cut(dataset["cut"]))
    of_data.add(f"rebuild and compare: {found['verify']}")
    _gates(of_model, found["approvals"])
    _add(tree, "vector", found["vector"] or {"": found.get("note", "none")})
    _add(tree, "observation", found["observation"] or {"": "not published" if "note" in found else "none"})
    _add(tree, "label", found["label"] or {"": "not known yet"})
    return tree


def _cut(cut: dict[str, int]) -> str:
    """In the order of the partitions, whose numbers JSON has as text."""
    ends = sorted(cut.items(), key=lambda end: int(end[0]))
    return ", ".join(f"partition {partition} before offset {offset}" for partition, offset in ends)


def _gates(tree: Tree, approvals: dict[str, Any]) -> None:
    decision = approvals["decision"]
    branch = tree.add("{state} by {by} at {at}: {reason}".format_map(decision))
    for gate in approvals["gates"]:
        outcome = "[green]passed[/green]" if gate["passed"] else "[red]failed[/red]"
        branch.add(f"{outcome} {gate['name']}: {gate['reason']}")


def _add(tree: Tree, title: str, values: dict[str, Any], keys: tuple[str, ...] | None = None) -> Tree:
    branch = tree.add(title)
    for key in keys or values:
        if values.get(key) is not None:
            branch.add(f"{key} {values[key]}".strip())
    return branch
