"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DEFAULT_DATA_DIR", "DataDir", "Json", "PipelineName", "Reason", "Version", "Wait", "WaitSeconds"]

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="EVERLOOP_DATA_DIR", help="Where the stack keeps its data, logs and keys."
    ),
]
DEFAULT_DATA_DIR = Path(".everloop")
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")]
Version = Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The model version.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the history.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until a model answers.")]
WaitSeconds = Annotated[float, typer.Option("--timeout", min=1, help="For how many seconds --wait waits.")]
