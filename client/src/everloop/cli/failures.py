"""What happens when a command fails: one message, never a traceback."""

import contextlib
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

from everloop.errors import EverloopError, UsageError

__all__ = ["run"]


def run(app: typer.Typer, name: str | None = None) -> NoReturn:
    """Run the command of `sys.argv`. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app(prog_name=name)
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
    with contextlib.suppress(OSError):
        console.print(f"That was not foreseen; the details are in {_keep(error)}")
    return EverloopError.exit_code


def _keep(error: Exception) -> Path:
    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="everloop-error-", suffix=".log", delete=False) as file:
        file.write(text)
    return Path(file.name)
