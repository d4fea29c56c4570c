"""`everloop up` and `everloop down`."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Self

import psutil
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from everloop.cli.log_lines import LogFollower
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir
from everloop.cli.output import console
from everloop.embedded.children import last_lines, remove_leftover
from everloop.embedded.kafka import prepare_kafka
from everloop.errors import EverloopError, UsageError
from everloop.stack import SERVICES, Stack, StackSettings
from everloop.stack.folder import DataFolder

__all__ = ["add_to"]

_START_SECONDS = 300.0
_STOP_SECONDS = 35.0
_INTERRUPTED = 130
"""The exit code of a program that a signal ended, as shells count it."""


def _port(name: str, purpose: str) -> Any:
    option = f"--{name.replace('_', '-')}-port"
    return typer.Option(option, min=1, max=65535, help=f"{purpose}.", rich_help_panel="Ports")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: everloop up --data-dir ~/everloop --serving-port 9080")(up)
    app.command(epilog="Example: everloop down --data-dir ~/everloop")(down)


def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
    fsync: Annotated[
        bool | None, typer.Option("--fsync/--no-fsync", help="Wait for the disk (default: yes).")
    ] = None,
    services: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    kafka_port: Annotated[int | None, _port("kafka", "Kafka")] = None,
    postgres_port: Annotated[int | None, _port("postgres", "PostgreSQL")] = None,
    ingest_port: Annotated[int | None, _port("ingest", "Ingest")] = None,
    feature_port: Annotated[int | None, _port("feature", "Feature: health and metrics")] = None,
    trainer_port: Annotated[int | None, _port("trainer", "Trainer")] = None,
    registry_port: Annotated[int | None, _port("registry", "Registry")] = None,
    serving_port: Annotated[int | None, _port("serving", "Serving, HTTP")] = None,
    serving_grpc_port: Annotated[int | None, _port("serving_grpc", "Serving, gRPC")] = None,
    monitor_port: Annotated[int | None, _port("monitor", "Monitor")] = None,
) -> None:
    """Start Kafka, PostgreSQL and the six services; Ctrl-C stops them all.

    A later `up` in the same folder goes on where this one stopped, also after a crash.
    """
    if detach:
        _start_detached(DataFolder(data_dir))
        return
    given: dict[str, Any] = {name: value for name, value in locals().items() if name.endswith("_port")}
    chosen = {name: value for name, value in {**given, "fsync": fsync}.items() if value is not None}
    settings = StackSettings(**chosen)
    try:
        _run(data_dir, settings, _chosen(services))
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop the stack that runs in the data folder, and whatever a crashed one left behind."""
    folder = DataFolder(data_dir)
    record = folder.read()
    if record is not None:
        _stop(record.pid)
        console.print("Stopped.")
        return
    left = [file for file in folder.path.glob("*/*.pid") if remove_leftover(file)]
    killed = folder.end_leftovers()
    ended = len(left) + len(killed)
    console.print(f"Ended {ended} left-over processes." if ended else f"Nothing runs in {folder.path}.")


def _stop(pid: int) -> None:
    process = psutil.Process(pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except psutil.TimeoutExpired as error:
        raise EverloopError(
            f"The stack (pid {pid}) has not stopped after {_STOP_SECONDS:.0f} s.",
            f"End it with: kill -9 {pid}",
        ) from error


def _chosen(services: str | None) -> list[str]:
    known = [spec.name for spec in SERVICES]
    chosen = known if services is None else [name.strip() for name in services.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UsageError(f"There is no service {', '.join(unknown)}.", f"The services: {', '.join(known)}.")
    return chosen


def _run(data_dir: Path, settings: StackSettings, services: list[str]) -> None:
    def tell(name: str, what: str) -> None:
        console.print(f"[bold]{name:<9}[/bold]{what}")

    stack = Stack(data_dir, ports=settings.ports(), fsync=settings.fsync, services=services, tell=tell)
    stack.folder.make()
    with _Ending() as ending:
        _prepare()
        with LogFollower(stack.logs_dir, console), stack:
            ending.interrupts = False
            _welcome(stack)
            ending.asked.wait()
            console.print("Stopping …")


def _welcome(stack: Stack) -> None:
    names = {"kafka", "postgres", *stack.names} | ({"serving_grpc"} if "serving" in stack.names else set())
    for name, address in dataclasses.asdict(stack.addresses).items():
        if name in names:
            console.print(f"  {name:<13}{address}")
    console.print(f"Everything is ready. Data and logs are in {stack.folder.path}; Ctrl-C stops it.")


class _Ending:
    """The first SIGINT, SIGTERM or SIGHUP ends the stack: it interrupts a start, and is awaited after it."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.interrupts = True
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        if self.asked.is_set():
            return  # it is stopping already, in order
        self.asked.set()
        if self.interrupts:
            raise KeyboardInterrupt


def _prepare() -> None:
    """Fetch Kafka with a progress bar, the first time."""
    columns = (TextColumn("Fetching Kafka"), BarColumn(), DownloadColumn())
    with Progress(*columns, transient=True, console=console) as bar:
        task = bar.add_task("", total=None, visible=False)
        prepare_kafka(
            lambda _name, there, total: bar.update(task, completed=there, total=total, visible=True)
        )


def _start_detached(folder: DataFolder) -> None:
    """Run `up` with the same arguments in a session of its own, and wait until it is ready or has failed."""
    folder.make()
    folder.require_free()
    log = folder.path / "up.log"
    arguments = [part for part in sys.argv[1:] if part not in {"--detach", "-d"}]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # ourselves
            [sys.executable, "-m", "everloop", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        record = folder.read()
        if record is not None and record.ready:
            console.print(f"Everything is ready (pid {record.pid}). `everloop down` stops it.")
            return
        time.sleep(0.1)
    process.terminate()
    raise EverloopError(f"The stack did not start:\n{last_lines(log, 8)}", f"The whole log: {log}")
