"""The processes' log files, merged into one coloured stream."""

import contextlib
import json
import re
import threading
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["LogFollower", "line_text"]

_COLOURS = {
    "kafka": "bright_black",
    "postgres": "bright_black",
    "registry": "magenta",
    "ingest": "cyan",
    "feature": "green",
    "trainer": "yellow",
    "serving": "blue",
    "monitor": "bright_red",
}
_LEVELS = {"error": "bold red", "critical": "bold red", "warning": "yellow"}
_PLAIN = {"time", "level", "logger", "message", "service", "trace_id", "span_id", "traceback"}
_POLL_SECONDS = 0.25
_LONGEST_VALUE = 200


def _always(_line: str) -> bool:
    return True


_OF_EVERY_START_AND_STOP = r"DefaultAutoTopicCreationManager|kafka-shutdown-hook"
"""Kafka warns when two clients ask for its own topics at once, and when it closes what is closed."""
_SHOWN = {
    "kafka": re.compile(rf"^(?!.*({_OF_EVERY_START_AND_STOP})).* (WARN|ERROR|FATAL) ").search,
    "postgres": re.compile(r" (WARNING|ERROR|FATAL|PANIC): ").search,
}
"""What of the servers' own logs is worth a line in the terminal; the files have all of it."""


class LogFollower:
    """Prints what is added to the logs of a folder, from now on, in a thread of its own."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._read = {path: path.stat().st_size for path in folder.glob("*.log")}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="everloop-logs", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            self._print_new()
        self._print_new()

    def _print_new(self) -> None:
        with contextlib.suppress(OSError):  # the terminal has gone, or its file's disk is full
            for path in sorted(self._folder.glob("*.log")):
                for line in filter(_SHOWN.get(path.stem, _always), self._new_lines(path)):
                    self._console.print(line_text(path.stem, line))

    def _new_lines(self, path: Path) -> list[str]:
        """Whole lines only; a file that has become shorter was rotated, and is read from its beginning."""
        start = self._read.get(path, 0)
        if path.suffixes[:-1] or path.stat().st_size == start:
            return []
        if path.stat().st_size < start:
            start = 0
        with path.open("rb") as file:
            file.seek(start)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read[path] = start + len(whole)
        return whole.decode(errors="replace").splitlines()


def line_text(name: str, line: str) -> Text:
    """One line as the terminal shows it: a service's JSON becomes time, level, message and extras."""
    text = Text(f"{name:<9}", style=_COLOURS.get(name, ""))
    try:
        entry = json.loads(line)
    except ValueError:
        return text.append(line, style="")
    if not isinstance(entry, dict) or "message" not in entry:
        return text.append(line, style="")
    return text.append_text(_entry_text(entry))


def _entry_text(entry: dict[str, Any]) -> Text:
    level = str(entry.get("level", "info"))
    text = Text(f"{str(entry.get('time', ''))[11:19]} ", style="bright_black")
    if level in _LEVELS:
        text.append(f"{level.upper()} ", style=_LEVELS[level])
    text.append(str(entry["message"]), style="")
    for key, value in entry.items():
        if key not in _PLAIN:
            text.append(f" {key}={str(value)[:_LONGEST_VALUE]}", style="bright_black")
    return text
