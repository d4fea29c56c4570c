"""`everloop dlq`: records that a service set aside, and how they go back."""

import asyncio
from typing import Annotated, Any

import typer
from everloop_kernel import dead_letters
from everloop_kernel.dead_letters import StoredDeadLetter
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import GROUPS

from everloop.cli.kafka_records import base64_text, kafka_of, readable
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir, Json
from everloop.cli.output import console, print_json, table
from everloop.errors import EverloopError, UsageError

__all__ = ["app"]

app = typer.Typer(help="Dead letters: records that a service could not handle.", no_args_is_help=True)

Group = Annotated[str, typer.Argument(metavar="GROUP", help="A consumer group, such as everloop-ingest.")]
Last = Annotated[int, typer.Option(min=1, help="How many of the newest.")]


@app.command("list", epilog="Example: everloop dlq list everloop-ingest")
def list_(
    group: Annotated[str | None, typer.Argument(metavar="[GROUP]", help="One group; all by default.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    last: Last = 100,
    as_json: Json = False,
) -> None:
    """List dead letters with their reasons."""
    groups = [_known(group)] if group else list(GROUPS)
    found = asyncio.run(_list(kafka_of(data_dir), groups, last))
    if as_json:
        print_json([{"group": name, **_view(letter)} for name, letter in found])
        return
    rows = (
        (
            name,
            one.position,
            one.at[:19],
            one.reason_code,
            one.reason[:80],
            _origin(one),
            "yes" if one.replayed else "",
        )
        for name, one in found
    )
    table(("group", "offset", "at", "code", "reason", "from", "replayed"), rows, empty="No dead letters.")


@app.command(epilog="Example: everloop dlq show everloop-ingest 17")
def show(
    group: Group,
    offset: Annotated[int, typer.Argument(min=0, help="As `dlq list` shows it.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    as_json: Json = False,
) -> None:
    """Show one dead letter: why it is there, its headers, its bytes."""
    letter = asyncio.run(dead_letters.show(kafka_of(data_dir), _known(group), offset))
    if letter is None:
        raise EverloopError(f"{group} has no dead letter at {offset}.", f"See: everloop dlq list {group}")
    if as_json:
        print_json(_view(letter))
        return
    console.print(f"{letter.reason_code}: {letter.reason}", markup=False)
    console.print(f"from {_origin(letter)}, set aside {letter.at}", markup=False)
    for name, value in letter.headers:
        console.print(f"{name}: {readable(value)}", markup=False)
    console.print(readable(letter.value), markup=False)


@app.command(epilog="Example: everloop dlq replay everloop-ingest --to 17")
def replay(
    group: Group,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    *,
    to: Annotated[int | None, typer.Option(min=0, help="The last offset to send again.")] = None,
) -> None:
    """Send dead letters to where they came from, each once however often this is run."""
    done = asyncio.run(dead_letters.replay(kafka_of(data_dir), _known(group), to=to))
    if done.published or not done.left:
        console.print(
            f"{done.published} records were sent again."
            if done.published
            else "There is nothing left to send again."
        )
    if done.left:
        raise EverloopError(
            f"{len(done.left)} were passed over, for where they came from is no topic there is.",
            f"See the first: everloop dlq show {group} {done.left[0]}",
        )


async def _list(kafka: KafkaSettings, groups: list[str], last: int) -> list[tuple[str, StoredDeadLetter]]:
    return [(name, letter) for name in groups for letter in await dead_letters.list_(kafka, name, last=last)]


def _known(group: str) -> str:
    if group not in GROUPS:
        raise UsageError(f"There is no group {group}.", f"The groups: {', '.join(GROUPS)}.")
    return group


def _origin(letter: StoredDeadLetter) -> str:
    known = letter.topic and letter.partition >= 0
    return f"{letter.topic}-{letter.partition}@{letter.offset}" if known else "an unknown place"


def _view(letter: StoredDeadLetter) -> dict[str, Any]:
    return {
        "offset": letter.position,
        "code": letter.reason_code,
        "reason": letter.reason,
        "topic": letter.topic,
        "partition": letter.partition,
        "original_offset": letter.offset,
        "at": letter.at,
        "replayed": letter.replayed,
        "headers": [[name, base64_text(value)] for name, value in letter.headers],
        "key_base64": base64_text(letter.key),
        "value_base64": base64_text(letter.value),
    }
