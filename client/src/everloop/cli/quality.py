"""`everloop quality PIPELINE` and `everloop quality accept PIPELINE`: what the gates say of the data."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json, PipelineName
from everloop.cli.output import console, print_json, table, when
from everloop.client import Client

__all__ = ["app"]


class _ShowsByDefault(TyperGroup):
    """A word that is no command is a pipeline's name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take `quality NAME` for `quality show NAME`."""
        known = args and (args[0] in self.commands or args[0].startswith("-"))
        return super().resolve_command(ctx, args if known else ["show", *args])


app = typer.Typer(
    cls=_ShowsByDefault,
    no_args_is_help=True,
    help="What the gates on the data say, window by window; take data as it is.",
    epilog="Example: everloop quality flight-delay",
)


@app.command(epilog="Example: everloop quality flight-delay --windows 48")
def show(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    windows: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many windows.")] = 24,
    as_json: Json = False,
) -> None:
    """Show the newest windows, their rows and broken gates, and whether training is held back."""
    with Client(data_dir=data_dir) as client:
        found = client.quality(pipeline, windows=windows)
    if as_json:
        print_json(found)
        return
    rows = [
        (_span(one), one["state"], *(one[name] for name in _COUNTS), _broken(one)) for one in found["windows"]
    ]
    table(("window", "state", *_COUNTS, "broken gates"), rows, empty="No window yet: nothing has come.")
    console.print()
    console.print(_verdict(found))


@app.command(epilog="Example: everloop quality accept flight-delay -r 'the new gauge reads higher'")
def accept(
    pipeline: PipelineName,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept.")],
) -> None:
    """Take the data as it is: training may start, and the gates broken now stay open until it has learned."""
    with Client(data_dir=data_dir) as client:
        found = client.accept_quality(pipeline, reason)
    console.print(f"Accepted for {pipeline}: {', '.join(found['accepted'])}")


_COUNTS = ("observations", "labels", "duplicates", "quarantined")


def _span(window: dict[str, Any]) -> str:
    return f"{when(window['start'])[:16]} to {when(window['end'])[11:16]}"


def _broken(window: dict[str, Any]) -> str:
    return "; ".join(f"{gate['gate']} {gate['figure']:.3g} ({_limits(gate)})" for gate in window["broken"])


def _limits(gate: dict[str, Any]) -> str:
    words = (("at_least", "at least"), ("at_most", "at most"))
    return ", ".join(f"{text} {gate[name]:.3g}" for name, text in words if gate[name] is not None)


def _verdict(found: dict[str, Any]) -> str:
    profile = found["profile"]
    learned = (
        f"run {profile['run_id'][:13]}" if profile else "nothing yet: the first training publishes a profile"
    )
    lines = [f"Learned from {learned}."]
    if found["blocked"]:
        lines += [
            f"[red]Training is held back:[/red] {found['blocked_reason']}.",
            f"It goes on when a window passes, or now: everloop quality accept {found['pipeline']} -r WHY",
        ]
    else:
        lines.append("[green]Nothing holds training back.[/green]")
    waived = (found["standing"] or {}).get("waived")
    return "\n".join([*lines, f"Open by a person's decision: {', '.join(waived)}."] if waived else lines)
