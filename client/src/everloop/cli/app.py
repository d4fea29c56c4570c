"""All commands together, and what happens when one fails: one message, never a traceback."""

import contextlib
import errno
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

import typer
from everloop_kernel.errors import ConfigurationError, one_line
from everloop_kernel.errors import EverloopError as PlatformError
from rich.console import Console
from rich.markup import escape

from everloop.cli import (
    access,
    backfill,
    catalog,
    data,
    dead_letters,
    decisions,
    demo,
    doctor,
    file_tests,
    files,
    first_steps,
    lineage,
    listings,
    quality,
    quarantine,
    running,
    status,
    topics,
    vectors,
)
from everloop.errors import EverloopError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="everloop",
    help="Keep tabular models fresh: start the platform, define pipelines, send data, follow what happens.",
    epilog="Start with: everloop up · everloop apply pipeline.yaml · everloop status",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    running,
    status,
    doctor,
    files,
    file_tests,
    listings,
    decisions,
    data,
    backfill,
    lineage,
    vectors,
    demo,
):
    module.add_to(app)
first_steps.add_to(app)
catalog.add_to(app)
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(access.app, name="token")
app.add_typer(topics.app, name="topics")
app.add_typer(quality.app, name="quality")


def main() -> NoReturn:
    """Run the command of `sys.argv`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app()
    except Exception as error:  # noqa: BLE001  # the last line of defence: people get a sentence
        sys.exit(_explain(error))
    sys.exit(0)


def _explain(error: Exception) -> int:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if isinstance(error, EverloopError):
        console.print(f"[red]{escape(error.message)}[/red]")
        if error.mend:
            console.print(escape(error.mend))
        return error.exit_code
    if isinstance(error, PlatformError):
        console.print(f"[red]{escape(one_line(error))}[/red]")
        return UsageError.exit_code if isinstance(error, ConfigurationError) else EverloopError.exit_code
    console.print(f"[red]{escape(one_line(error))}[/red]")
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        console.print("Free space there and try again; what is stored stays intact.")
        return EverloopError.exit_code
    with contextlib.suppress(OSError):
        console.print(f"That was not foreseen; the details are in {_keep(error)}")
    return EverloopError.exit_code


def _keep(error: Exception) -> Path:
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="everloop-error-", suffix=".log", delete=False) as file:
        file.write(text)
    return Path(file.name)
