"""The main job: replay New York's flights of 2013 through six services and watch the loop close."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import flights_data
import typer
from demo import Demo, Plan
from everloop.cli.failures import run
from everloop.otlp import SpanSink
from everloop.stack import Ports, Stack
from rich.console import Console
from summary import show

HERE = Path(__file__).parent
DAYS = 120
YEAR = 365
SECONDS_A_DAY = 1.0
MARKER = "demo"
HURRIED = {"EVERLOOP_COMMIT_INTERVAL_MS": "20"}
"""The clock waits for each step's labels, and nothing else shares their transaction."""
WHOLE_LOOP_DAYS = 100
"""A shorter replay need not meet drift or a rejected version."""


def main(
    days: Annotated[int, typer.Option(min=26, max=YEAR, help="Days of 2013 to replay.")] = DAYS,
    full: Annotated[bool, typer.Option("--full", help="The whole year.")] = False,  # noqa: FBT002
    seconds: Annotated[
        float | None, typer.Option(help="Spread the days that have a model over so many seconds.")
    ] = None,
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("demo-report.json"),
    data_dir: Annotated[
        Path, typer.Option(help="Keep the data here; a demo's earlier data there is removed.")
    ] = Path(".everloop/demo"),
) -> None:
    """Replay real flights in the order things were known; exit 1 if anything was lost, doubled or failed."""
    console = Console()
    days = YEAR if full else days
    _empty(data_dir)
    console.print(f"Reading {days} days of flights …")
    plan = Plan(
        flights=flights_data.load(days=days),
        pipeline=HERE / "pipeline.yaml",
        days=days,
        seconds=seconds if seconds is not None else days * SECONDS_A_DAY,
        whole=days >= WHOLE_LOOP_DAYS,
    )
    began = time.monotonic()
    with (
        SpanSink() as sink,
        Stack(
            data_dir, ports=Ports.free(), env={**HURRIED, "EVERLOOP_OTLP_ENDPOINT": sink.endpoint}
        ) as stack,
    ):
        result, shortcomings = asyncio.run(_play(plan, stack, sink, console, began))
        lineage = _lineage(result, data_dir)
    report.write_text(json.dumps(result, indent=2) + "\n")
    show(console, result, lineage, f"everloop up -d --data-dir {data_dir} && {_command(result, data_dir)}")
    console.print(f"Report: {report}")
    for text in shortcomings:
        console.print(f"[red]failed:[/] {text}")
    sys.exit(1 if shortcomings else 0)


async def _play(
    plan: Plan, stack: Stack, sink: SpanSink, console: Console, began: float
) -> tuple[dict[str, Any], list[str]]:
    return await Demo(plan, stack=stack, sink=sink, console=console, began=began).run()


def _empty(data_dir: Path) -> None:
    """Begin anew, but never remove what is not a demo's."""
    marker = data_dir / MARKER
    if data_dir.exists() and any(data_dir.iterdir()) and not marker.exists():
        sys.exit(f"{data_dir} holds data that is not a demo's: choose another folder with --data-dir.")
    shutil.rmtree(data_dir, ignore_errors=True)
    data_dir.mkdir(parents=True)
    marker.touch()


def _command(result: dict[str, Any], data_dir: Path) -> str:
    return f"everloop trace {result['trace'].get('prediction')} --data-dir {data_dir}"


def _lineage(result: dict[str, Any], data_dir: Path) -> str:
    """What the command prints about one prediction; empty when none was traced."""
    if not result["trace"]:
        return ""
    everloop = Path(sys.executable).with_name("everloop")
    command = [str(everloop), *_command(result, data_dir).split()[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603


if __name__ == "__main__":
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.command()(main)
    run(app, "everloop demo")
