"""`everloop publish` and `predict`: data in, answers out."""

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName, Wait, WaitSeconds
from everloop.cli.output import console, print_json, table, tell_waiting
from everloop.client import Client, PublishResult
from everloop.errors import EverloopError, UsageError
from everloop.inference import Prediction
from everloop.refusals import NO_MODEL, RefusedError
from everloop.standing import standing, wait_for_model

__all__ = ["add_to"]

_SHOWN = 5
_NO_KNOWN_AT = "known-at-not-allowed"


class Kind(StrEnum):
    """What a record is."""

    OBSERVATIONS = "observations"
    LABELS = "labels"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop publish flight-delay observations flights.ndjson")(publish)
    app.command(epilog='Example: everloop predict flight-delay -d \'{"origin": "EWR", "distance": 1400}\'')(
        predict
    )


def publish(
    pipeline: PipelineName,
    kind: Annotated[Kind, typer.Argument(help="What the records are.")],
    file: Annotated[
        Path, typer.Argument(help="A JSON object, an array, or one object a line; - reads standard input.")
    ],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    source: Annotated[
        str | None, typer.Option(help="The CloudEvents source; (source, id) is taken once.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send records to ingest; exit 1 if one was refused."""
    records = list(_records(_text(file)))
    if not records:
        raise EverloopError(f"{file} holds no record: nothing was sent.", "Write one JSON object a line.")
    with Client(data_dir=data_dir) as client:
        result = client.publish(pipeline, kind.value, records, source=source)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        _print(result)
    if result.refused:
        raise EverloopError(
            f"{len(result.refused)} of {len(records)} records were refused.", "Mend them and send them again."
        )


def predict(
    pipeline: PipelineName,
    fields: Annotated[str, typer.Option("--data", "-d", help="The observation's fields as a JSON object.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    prediction_id: Annotated[
        str | None, typer.Option("--id", help="The id that its label will have.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Ask this model version.")] = None,
    explain: Annotated[bool, typer.Option(help="Say what each feature contributed.")] = False,
    wait: Wait = False,
    timeout: WaitSeconds = 300.0,
    as_json: Json = False,
) -> None:
    """Ask for one prediction; with --wait as soon as there is a model."""
    given = _fields(fields)
    chosen = prediction_id or given.pop("id", None)
    with Client(data_dir=data_dir) as client:
        if wait:
            wait_for_model(client, pipeline, version, timeout, tell_waiting)
        try:
            found = client.predict(pipeline, given, prediction_id=chosen, version=version, explain=explain)
        except RefusedError as error:
            raise _no_model(client, pipeline, version, error) from error
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        console.print(f"{found.output:.6g} by model version {found.model_version}, id {found.id}")
        _print_explanation(found)


def _print_explanation(found: Prediction) -> None:
    if found.explanation is None:
        return
    parts: dict[str, float] = found.explanation["contributions"]
    for reason in found.explanation["reasons"]:
        console.print(f"  {reason}", markup=False)
    rows = [
        (name, found.vector.get(name), parts[name]) for name in sorted(parts, key=lambda n: -abs(parts[n]))
    ]
    ends = [(name.replace("_", " "), "", found.explanation[name]) for name in ("base_value", "score")]
    heading = f"contribution ({found.explanation['space']})"
    table(["feature", "value", heading], [(*row, f"{part:+.4g}") for *row, part in (*rows, *ends)], empty="")


def _fields(text: str) -> dict[str, Any]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UsageError(
            f"--data is no JSON: {error}", """Write for example: -d '{"site": "north"}'"""
        ) from error
    if not isinstance(given, dict):
        raise UsageError(f"--data is no JSON object: {text[:80]}", "Give one object with the fields.")
    return given


def _no_model(client: Client, pipeline: str, version: int | None, error: RefusedError) -> EverloopError:
    """Why no model answers, as the registry and the trainer know it; serving knows deployments alone."""
    if error.status not in NO_MODEL or version is not None or client.answers(pipeline):
        return error
    return EverloopError(
        f"{pipeline} has no model that answers yet: {standing(client, pipeline)}.",
        "Wait for it with --wait, or see `everloop status`.",
    )


def _print(result: PublishResult) -> None:
    console.print(f"{result.accepted} accepted, {len(result.refused)} refused")
    for one in result.refused[:_SHOWN]:
        rules = "; ".join(map(_violation, one.get("violations", []))) or str(one.get("reason"))
        console.print(f"  record {one['row'] + 1}: {rules}", markup=False)
    if any(one.get("reason") == _NO_KNOWN_AT for one in result.refused):
        console.print("  Name a replay source of the pipeline's file with --source, or leave known_at out.")


def _violation(violation: Mapping[str, str | None]) -> str:
    value = f" {violation['value']}" if violation.get("value") else ""
    return f"{violation['field'] or 'record'}{value} ({violation['rule']}): {violation['mend']}"


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EverloopError(f"{file} cannot be read: {error}", "Name a UTF-8 file.") from error


def _records(text: str) -> Iterator[dict[str, Any]]:
    """An array's objects, or each line's, or the only one."""
    try:
        whole = json.loads(text)
        found = whole if isinstance(whole, list) else [whole]
    except ValueError:
        found = [_line(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for record in found:
        if not isinstance(record, dict):
            raise UsageError(
                f"{str(record)[:80]} is no JSON object.", "A record is an object with its fields."
            )
        yield record


def _line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise UsageError(f"Line {number} is no JSON: {error}", "Write one JSON object a line.") from error
