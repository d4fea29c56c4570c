"""`everloop topics`: the platform's topics."""

import asyncio

import typer
from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import platform_topics

from everloop.addresses import find_addresses
from everloop.cli.options import DEFAULT_DATA_DIR, DataDir
from everloop.cli.output import console

__all__ = ["app"]

app = typer.Typer(help="The platform's Kafka topics.", no_args_is_help=True)


@app.callback()
def _topics() -> None:
    """The platform's Kafka topics."""


@app.command(epilog="Example: EVERLOOP_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 everloop topics create")
def create(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Create the shared topics that do not exist; `everloop up` does so by itself."""
    kafka = KafkaSettings(bootstrap_servers=find_addresses(data_dir).kafka)
    created = asyncio.run(ensure_topics(kafka, platform_topics()))
    console.print("\n".join(created) if created else "Every topic is there already.")
