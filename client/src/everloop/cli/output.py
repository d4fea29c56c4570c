"""What commands print: JSON for programs, tables and sentences for people."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["bytes_text", "cell", "console", "print_json", "table", "tell_waiting", "when"]

_WIDTH_OF_A_FILE = 300

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def print_json(value: Any) -> None:
    """Print JSON and nothing else; what JSON does not know, such as a time or a path, becomes text."""
    print(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def tell_waiting(what: str) -> None:
    """Say what is waited for, beside the output proper."""
    print(f"waiting: {what}", file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table, or a sentence where there is nothing to list."""
    filled = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        filled.add_column(name)
    for row in rows:
        filled.add_row(*map(cell, row))
    console.print(filled if filled.row_count else empty)


def cell(value: Any) -> str:
    """A value as a cell shows it; missing is a hyphen."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def when(text: str | None) -> str:
    """A time to the second."""
    if not text:
        return "-"
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")


def bytes_text(count: float) -> str:
    """Bytes for people.

    Example:
        >>> bytes_text(150_000_000)
        '143 MiB'
    """
    mebibytes = count / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"  # noqa: PLR2004
