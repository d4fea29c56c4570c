"""`everloop token`: who may do what."""

from pathlib import Path
from typing import Annotated

import typer
from everloop_kernel.auth import create_token

from everloop.cli.output import console

__all__ = ["app"]

app = typer.Typer(help="Make bearer tokens for the services.", no_args_is_help=True)

_DEFAULT_FILE = Path(".everloop/tokens.jsonl")


@app.callback()
def _token() -> None:
    """Make bearer tokens for the services."""


@app.command(epilog="Example: everloop token create loader --role producer --pipeline flight-delay")
def create(
    name: Annotated[str, typer.Argument(help="Whose it is; the name stands in histories.")],
    role: Annotated[
        list[str], typer.Option(help="reader, producer, replay, operator or admin; may be repeated.")
    ],
    pipeline: Annotated[
        list[str] | None, typer.Option(help="Only for this pipeline; may be repeated.")
    ] = None,
    file: Annotated[
        Path, typer.Option(envvar="EVERLOOP_TOKENS_FILE", help="The tokens file.")
    ] = _DEFAULT_FILE,
) -> None:
    """Make a token and show it, this once; the file keeps its hash alone."""
    token = create_token(file, name, role, pipeline)
    console.print(token)
    console.print(
        f"Its hash is in {file}. The services read it when EVERLOOP_TOKENS_FILE={file.absolute()}",
        style="dim",
    )
    console.print("A client sends it when EVERLOOP_TOKEN is set to it.", style="dim")
