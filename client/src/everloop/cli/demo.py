"""`everloop demo`: the flights example, from a checkout of the project."""

import os
import sys
from pathlib import Path

import typer

from everloop.errors import EverloopError

__all__ = ["add_to"]

_HERE = Path(__file__).resolve()


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=settings, epilog="Example: everloop demo --days 30")(demo)


def demo(context: typer.Context) -> None:
    """Replay New York's flights of 2013 through the whole loop and write demo-report.json."""
    example = _find()
    os.execv(sys.executable, [sys.executable, str(example), *context.args])  # noqa: S606  # our own example


def _find() -> Path:
    """In the current folder or its parents, or in the checkout that this package was installed from."""
    for folder in (*[Path.cwd(), *Path.cwd().parents], *_HERE.parents):
        if (folder / "examples" / "flights" / "__main__.py").exists():
            return folder / "examples" / "flights"
    raise EverloopError(
        "The flights example is not here: it comes with the project's source, not with the package.",
        "Clone the project and run `make demo` there.",
    )
