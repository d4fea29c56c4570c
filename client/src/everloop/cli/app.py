"""All commands together."""

from typing import NoReturn

import typer

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
    retracting,
    running,
    status,
    topics,
    vectors,
)
from everloop.cli.failures import run

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
    retracting,
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
    """Run the command of `sys.argv`."""
    run(app)
