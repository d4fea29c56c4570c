"""The main job: replay New York's flights of 2013 through six services and watch the loop close."""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import flights_data
import typer
from demo import Demo, Plan
from everloop.otlp import SpanSink
from everloop.stack import Ports, Stack
from rich.console import Console

HERE = Path(__file__).parent
DAYS = 120
YEAR = 365
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
        Path | None,
        typer.Option(help="Keep the data here, so that `everloop up --data-dir` can go on with it."),
    ] = None,
) -> None:
    """Replay real flights in the order things were known; exit 1 if anything was lost, doubled or failed."""
    days = YEAR if full else days
    console = Console()
    console.print(f"Reading {days} days of flights …")
    flights = flights_data.load(days=days)
    plan = Plan(
        flights=flights,
        pipeline=HERE / "pipeline.yaml",
        days=days,
        seconds=seconds if seconds is not None else days * 1.25,
        whole=days >= WHOLE_LOOP_DAYS,
    )
    keep = data_dir or Path(tempfile.mkdtemp(prefix="everloop-demo-"))
    began = time.monotonic()
    with (
        SpanSink() as sink,
        Stack(keep, ports=Ports.free(), env={"EVERLOOP_OTLP_ENDPOINT": sink.endpoint}) as stack,
    ):
        demo = Demo(plan, stack=stack, sink=sink, console=console, began=began)
        result, shortcomings = asyncio.run(demo.run())
    report.write_text(json.dumps(result, indent=2) + "\n")
    console.print(f"Report: {report}")
    for text in shortcomings:
        console.print(f"[red]failed:[/] {text}")
    sys.exit(1 if shortcomings else 0)


if __name__ == "__main__":
    typer.run(main)
