"""`everloop catalog`: what data there is, what it means, who reads it."""

import json
from typing import Annotated, Any

import typer

from everloop.cli.catalog_profiles import print_profiles
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json
from everloop.cli.output import console, print_json, table, when
from everloop.client import Client

__all__ = ["add_to"]

_SHOWN = 60
_LISTED = 4


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop catalog flight-delay --diff 1 2")(catalog)


def catalog(
    pipeline: Annotated[
        str | None, typer.Argument(metavar="[PIPELINE]", help="One pipeline; all by default.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    diff: Annotated[
        tuple[int, int] | None, typer.Option("--diff", metavar="BEFORE AFTER", help="Compare two versions.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a pipeline's fields, how their data moved, features, readers and versions; or all in a line."""
    with Client(data_dir=data_dir) as client:
        if pipeline is None:
            found: Any = [client.catalog(one["pipeline"]) for one in client.pipelines()]
        else:
            found = client.catalog(pipeline, diff)
    if as_json:
        print_json(found)
    elif pipeline is None:
        _print_all(found)
    elif diff is not None:
        _print_changes(found["changes"])
    else:
        _print_one(found)


def _print_all(found: list[dict[str, Any]]) -> None:
    rows = (
        (
            one["pipeline"],
            one["version"],
            one["team"],
            one["description"],
            len(one["fields"]),
            len(one["features"]),
            next((m["model_version"] for m in one["models"] if m["stage"] == "champion"), None),
        )
        for one in found
    )
    columns = ("pipeline", "version", "team", "description", "fields", "features", "champion")
    table(columns, rows, empty="No pipeline yet: everloop apply FILE")


def _print_one(found: dict[str, Any]) -> None:
    label = found["label"]
    told = f"{found['pipeline']}, version {found['version']}, team {found['team'] or '-'}"
    console.print(told, style="bold", markup=False)
    if found["description"]:
        console.print(found["description"], markup=False)
    console.print(f"predicts {label['name']} ({label['type']}): {label['expression']}\n", markup=False)
    _print_fields(found["fields"])
    print_profiles(found.get("profiles", []), {one["name"]: one.get("unit") for one in found["fields"]})
    features = ((one["name"], one["expression"], ", ".join(one["fields"])) for one in found["features"])
    table(("feature", "expression", "uses"), features, empty="No features.")
    console.print()
    models = ((one["model_version"], one["stage"], one["pipeline_version"]) for one in found["models"])
    table(("model", "stage", "of pipeline version"), models, empty="No model yet.")
    console.print()
    topics = (
        (one["topic"], ", ".join(one["producers"]), ", ".join(one["consumers"])) for one in found["topics"]
    )
    table(("topic", "written by", "read by"), topics, empty="No topics.")
    console.print()
    versions = (
        (one["version"], when(one["defined_at"]), one["defined_by"], _paths(one["changes"]))
        for one in found["versions"]
    )
    table(("version", "defined", "by", "changed"), versions, empty="No version.")


def _print_fields(fields: list[dict[str, Any]]) -> None:
    rows = (
        (
            f"{one['name']}{' (key)' if one['is_key'] else ''}",
            one["of"],
            one["type"],
            one.get("unit"),
            "yes" if one.get("nullable") else "no",
            _range(one),
            "yes" if one.get("pii") else "",
            one.get("owner"),
            one.get("source"),
            one.get("description"),
            ", ".join(one["used_by"]),
        )
        for one in fields
    )
    columns = (
        "field",
        "of",
        "type",
        "unit",
        "null",
        "allowed",
        "PII",
        "owner",
        "source",
        "meaning",
        "used by",
    )
    table(columns, rows, empty="No fields.")
    console.print()


def _range(field: dict[str, Any]) -> str:
    values = field.get("values")
    if values:
        more = ", …" if len(values) > _LISTED else ""
        return ", ".join(values[:_LISTED]) + more
    if field.get("min") is None and field.get("max") is None:
        return ""
    low, high = field.get("min"), field.get("max")
    return f"{'' if low is None else f'{low:g}'} … {'' if high is None else f'{high:g}'}"


def _print_changes(changes: list[dict[str, Any]]) -> None:
    rows = ((one["path"], _short(one["before"]), _short(one["after"])) for one in changes)
    table(("key", "before", "after"), rows, empty="These versions say the same.")


def _short(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)[:_SHOWN]


def _paths(changes: list[dict[str, Any]]) -> str:
    paths = [str(one["path"]) for one in changes]
    more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
    return ", ".join(paths[:_LISTED]) + more
