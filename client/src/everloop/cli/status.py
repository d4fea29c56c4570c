"""`everloop status`: what runs, how far behind it is, what it serves and what happened last."""

import asyncio
import dataclasses
import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import typer
from aiokafka.errors import KafkaError
from everloop_kernel.settings import KafkaSettings

from everloop.addresses import find_addresses
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json
from everloop.cli.output import bytes_text, console, print_json, table
from everloop.client import Client
from everloop.embedded.usage import cpu_seconds, memory_bytes
from everloop.errors import EverloopError
from everloop.lag import lag_by_group
from everloop.recent import recent_events
from everloop.replays import Replay, replays_under_way
from everloop.stack import SERVICES
from everloop.stack.folder import DataFolder, StackRecord

__all__ = ["add_to"]

_EVENTS = 8
_PIPELINE = ("pipeline", "models", "champion", "revision", "training")


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: everloop status --json")(status)


def status(data_dir: DataDir = DEFAULT_DATA_DIR, *, as_json: Json = False) -> None:
    """Show services, memory, lag, models and the last events; exit 1 if a service is not ready."""
    found = gather(data_dir)
    if as_json:
        print_json(found)
    else:
        _print(found)
    waiting = [one["name"] for one in found["services"] if not one["ready"]]
    if waiting:
        raise EverloopError(f"Not ready: {', '.join(waiting)}.", _mend(found, data_dir))


def _mend(found: dict[str, Any], data_dir: Path) -> str:
    if found["starting"]:
        return "They are being started: ask again in a moment."
    if found["pid"] is not None:
        logs = DataFolder(data_dir).logs
        return f"`everloop up` runs (pid {found['pid']}) and starts again what ends; the logs: {logs}"
    return "`everloop up` starts what does not run."


def gather(data_dir: Path) -> dict[str, Any]:
    """Everything that `status` shows; a part that cannot be reached is left empty."""
    folder = DataFolder(data_dir)
    record = folder.read()
    kafka = KafkaSettings(bootstrap_servers=find_addresses(data_dir).kafka)
    with Client(data_dir=data_dir) as client:
        services = [_service(client, spec.name, record) for spec in SERVICES]
        pipelines = _pipelines(client)
        replays = replays_under_way(client.addresses.feature)
    lag, events = asyncio.run(_from_kafka(kafka)) if any(one["ready"] for one in services) else ({}, [])
    return {
        "pid": record.pid if record else None,
        "starting": not record.ready if record else folder.is_held(),
        "services": services,
        "servers": [_process(name, record) for name in ("kafka", "postgres")],
        "lag": lag,
        "pipelines": pipelines,
        "replays": [_replay(one) for one in replays],
        "events": events,
    }


def _replay(replay: Replay) -> dict[str, Any]:
    """JSON has no infinity: an end that is not in sight is null."""
    left = replay.seconds_left if math.isfinite(replay.seconds_left) else None
    derived = {"rows_left": replay.rows_left, "share": round(replay.share, 4)}
    return {**dataclasses.asdict(replay), **derived, "seconds_left": left}


async def _from_kafka(kafka: KafkaSettings) -> tuple[dict[str, int], list[dict[str, Any]]]:
    try:
        events = await recent_events(kafka, _EVENTS)
        return await lag_by_group(kafka), [dataclasses.asdict(event) for event in events]
    except (KafkaError, OSError):
        return {}, []


def _service(client: Client, name: str, record: StackRecord | None) -> dict[str, Any]:
    reason = client.why_not_ready(name)
    return {**_process(name, record), "ready": reason is None, "reason": reason}


def _process(name: str, record: StackRecord | None) -> dict[str, Any]:
    """What a process of this machine's stack takes; nothing is known about others."""
    process = record.processes.get(name) if record else None
    known = {"name": name, "restarts": process.restarts if process else None}
    if process is None or process.pid is None or not psutil.pid_exists(process.pid):
        return {**known, "pid": None, "memory_bytes": None, "cpu_seconds": None}
    used = {"memory_bytes": memory_bytes(process.pid), "cpu_seconds": round(cpu_seconds(process.pid), 2)}
    return {**known, "pid": process.pid, **used}


def _pipelines(client: Client) -> list[dict[str, Any]]:
    try:
        names = [one["pipeline"] for one in client.pipelines()]
        return [_pipeline(client, name) for name in names]
    except EverloopError:
        return []


def _pipeline(client: Client, name: str) -> dict[str, Any]:
    deployment, models = client.deployment(name), client.models(name)
    champion = (deployment.get("champion") or {}).get("model_version")
    return {
        "pipeline": name,
        "models": len(models),
        "champion": champion,
        "revision": deployment["revision"],
        "training": _training(client, name),
    }


def _training(client: Client, name: str) -> str | None:
    """What the next run waits for; None while the trainer does not answer or does not know the pipeline."""
    try:
        return str(client.training(name)["waiting_for"])
    except EverloopError:
        return None


def _print(found: dict[str, Any]) -> None:
    processes = [*found["servers"], *found["services"]]
    rows = (
        (one["name"], _state(one, found), one["pid"], _memory(one), one["cpu_seconds"], one["restarts"])
        for one in processes
    )
    table(("process", "state", "pid", "memory", "cpu s", "restarts"), rows, empty="")
    total = sum(one["memory_bytes"] or 0 for one in processes)
    if total:
        console.print(f"together {bytes_text(total)}\n")
    table(("group", "behind by"), found["lag"].items(), empty="Kafka does not answer.")
    console.print()
    pipelines = ([one[name] for name in _PIPELINE] for one in found["pipelines"])
    table(_PIPELINE, pipelines, empty=_no_pipeline(found["services"]))
    console.print()
    _print_replays(found["replays"])
    events = (
        (one["at"].strftime("%H:%M:%S"), one["name"], one["pipeline"], one["what"]) for one in found["events"]
    )
    table(("at", "event", "pipeline", "what"), events, empty="No event yet.")


def _print_replays(replays: list[dict[str, Any]]) -> None:
    if replays:
        rows = (
            (one["pipeline"], f"{one['share']:.0%}", one["position"], one["rows_left"], *_pace(one))
            for one in replays
        )
        table(("replay of", "done", "rows done", "to go", "rows/s", "time left"), rows, empty="")
        console.print()


def _pace(replay: dict[str, Any]) -> tuple[str, str]:
    """How fast, and how long still; a replay that comes no nearer to live records has no end in sight."""
    left = replay["seconds_left"]
    text = "no end in sight" if left is None else str(timedelta(seconds=round(left)))
    return f"{replay['rows_per_second']:.0f}", text


def _no_pipeline(services: list[dict[str, Any]]) -> str:
    away = any(one["name"] == "registry" and not one["ready"] for one in services)
    return "The registry, which knows them, is not ready." if away else "No pipeline yet: everloop apply FILE"


def _state(one: dict[str, Any], found: dict[str, Any]) -> str:
    if "ready" not in one:
        return _state_of_server(one, found)
    return "ready" if one["ready"] else f"not ready: {one['reason']}"


def _state_of_server(one: dict[str, Any], found: dict[str, Any]) -> str:
    """Kafka and PostgreSQL say nothing themselves; of others' nothing is known."""
    if one["pid"]:
        return "runs"
    if found["starting"] or found["pid"] is not None:
        return "being started"
    return "not started from this data folder"


def _memory(one: dict[str, Any]) -> str | None:
    return bytes_text(one["memory_bytes"]) if one["memory_bytes"] else None
