"""`everloop topics`: the platform's topics, and who may use them."""

import asyncio
from typing import Annotated

import typer
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.acls import SERVICES, command_line, producer_acls, service_acls
from everloop_schemas.topics import platform_topics

from everloop.addresses import find_addresses
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir
from everloop.cli.output import console
from everloop.errors import UsageError

__all__ = ["app"]

app = typer.Typer(help="The platform's Kafka topics.", no_args_is_help=True)


@app.command(epilog="Example: EVERLOOP_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 everloop topics create")
def create(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Create the shared topics that do not exist; `everloop up` does so by itself."""
    kafka = KafkaSettings(bootstrap_servers=find_addresses(data_dir).kafka)
    created = asyncio.run(ensure_topics(kafka, platform_topics()))
    console.print("\n".join(created) if created else "Every topic is there already.")


@app.command(epilog="Example: everloop topics acls --producer tower=flight-delay --config admin.properties")
def acls(
    producer: Annotated[
        list[str], typer.Option(help="USER=PIPELINE[,PIPELINE]: an outside producer; again for each")
    ] = [],  # noqa: B006  (typer's way to say: none)
    bootstrap: Annotated[str, typer.Option(help="the broker's address in the commands")] = "localhost:9092",
    config: Annotated[str | None, typer.Option(help="kafka-acls' --command-config: who grants")] = None,
) -> None:
    """Print the kafka-acls commands that grant each service, and each producer, what it needs and no more.

    A service's user is everloop-SERVICE.
    """
    wanted = [acl for name in SERVICES for acl in service_acls(name, f"User:everloop-{name}")]
    for each in producer:
        user, _, pipelines = each.partition("=")
        if not user or not pipelines:
            raise UsageError(f"--producer {each} is refused", "Write it as USER=PIPELINE[,PIPELINE].")
        wanted += producer_acls(f"User:{user}", pipelines.split(","))
    for acl in wanted:
        typer.echo(command_line(acl, bootstrap, config))
