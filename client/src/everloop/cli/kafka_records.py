"""What commands share that look at records in Kafka."""

import base64
from pathlib import Path

from everloop_kernel.settings import KafkaSettings

from everloop.addresses import find_addresses

__all__ = ["base64_text", "kafka_of", "readable"]


def kafka_of(data_dir: Path) -> KafkaSettings:
    """The Kafka that the environment or a stack's folder names."""
    return KafkaSettings(bootstrap_servers=find_addresses(data_dir).kafka)


def readable(value: bytes | None) -> str:
    """Bytes as text where they are text."""
    if value is None:
        return "null"
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return repr(value)


def base64_text(value: bytes | None) -> str | None:
    """Bytes as JSON carries them."""
    return None if value is None else base64.b64encode(value).decode()
