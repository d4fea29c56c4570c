"""What a person sees while the year goes by."""

import time
from collections import deque
from datetime import UTC, datetime
from typing import Self

from ledger import Ledger
from replay import Replay
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from watch import Seen, sentence

EVENTS_SHOWN = 12
COLORS = {
    "ModelApproved": "green",
    "ModelRejected": "yellow",
    "ModelLoaded": "bright_green",
    "DriftDetected": "magenta",
    "RunStarted": "cyan",
    "RunFailed": "red",
}


class Screen:
    """A live panel on a terminal; plain lines where there is none."""

    def __init__(self, console: Console, *, first: int, last: int) -> None:
        self.console = console
        self._first = first
        self._last = last
        self._lines: deque[Text] = deque(maxlen=EVENTS_SHOWN)
        self._rates = deque([(0.0, 0)], maxlen=20)
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._replay: Replay | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def tell(self, seen: Seen) -> None:
        """Show a decision as it happens."""
        line = sentence(seen.event)
        if line is None:
            return
        when = _date(self._replay.at) if self._replay and self._replay.at else "before"
        text = Text(f"{when}  {line}", style=COLORS.get(type(seen.event).__name__, ""))
        self._lines.append(text)
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True)

    def show(self, replay: Replay, now: float) -> None:
        """Draw the present state; `now` is a monotonic clock in seconds."""
        self._replay = replay
        ledger = replay.ledger
        self._rates.append((now, len(ledger.observations) + len(ledger.labels)))
        if self.console.is_terminal:
            body = Group(self._progress(replay), self._figures(ledger), *self._lines)
            self._live.update(Panel(body, title="Everloop: New York's flights of 2013"))

    def day(self, replay: Replay) -> None:
        """A line a day of pipeline time, for logs."""
        if not self.console.is_terminal:
            losses = " ".join(f"{k} {v:.4f}" for k, v in replay.ledger.losses.means().items())
            self.console.print(
                f"{time.monotonic() - self._began:4.0f} s  {_date(replay.at)}  "
                f"{len(replay.ledger.observations):,} flights  {losses}",
                soft_wrap=True,
            )

    def _progress(self, replay: Replay) -> Table:
        row = Table.grid(padding=(0, 1), expand=True)
        bar = ProgressBar(total=self._last - self._first, completed=max(0, replay.at - self._first))
        row.add_row(Text(_date(replay.at), style="bold"), bar)
        return row

    def _figures(self, ledger: Ledger) -> Table:
        (then, before), (now, after) = self._rates[0], self._rates[-1]
        rate = (after - before) / (now - then) if now > then else 0.0
        losses = ledger.losses.means()
        table = Table.grid(padding=(0, 2))
        table.add_row("records", f"{after:,}", f"{rate:,.0f}/s", "predictions", f"{len(ledger.answers):,}")
        table.add_row("failed requests", str(len(ledger.failures)), "", "log loss", _losses(losses))
        return table


def _losses(losses: dict[str, float]) -> str:
    return (
        "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in losses.items()) or "no label yet"
    )


def _date(micros: int) -> str:
    return (
        datetime.fromtimestamp(micros / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")
        if micros
        else "before the first"
    )
