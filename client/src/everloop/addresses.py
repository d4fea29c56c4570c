"""Where the services are: EVERLOOP_<SERVICE>_URL, else the stack in the data folder, else the defaults."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from everloop_kernel.settings import KafkaSettings, PostgresSettings, Settings
from pydantic import SecretStr

__all__ = ["Addresses", "ClientSettings", "find_addresses"]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Kafka's bootstrap servers, PostgreSQL's DSN, the services' URLs, and host:port of serving's gRPC."""

    kafka: str = "127.0.0.1:9092"
    postgres: str = "postgresql://everloop@127.0.0.1:5433/everloop"
    ingest: str = "http://127.0.0.1:8001"
    feature: str = "http://127.0.0.1:8002"
    trainer: str = "http://127.0.0.1:8003"
    registry: str = "http://127.0.0.1:8004"
    serving: str = "http://127.0.0.1:8080"
    serving_grpc: str = "127.0.0.1:8081"
    monitor: str = "http://127.0.0.1:8000"

    def of(self, name: str) -> str:
        """One address by its name."""
        return str(getattr(self, name))


class ClientSettings(Settings):
    """What a client needs to know: EVERLOOP_TOKEN and EVERLOOP_<SERVICE>_URL."""

    token: SecretStr | None = None
    ingest_url: str | None = None
    feature_url: str | None = None
    trainer_url: str | None = None
    registry_url: str | None = None
    serving_url: str | None = None
    monitor_url: str | None = None


def find_addresses(data_dir: Path | None = None) -> Addresses:
    """The addresses to use, given the folder of a stack that may run."""
    from everloop.stack.folder import DataFolder  # noqa: PLC0415  # the folder's record holds addresses itself

    found = Addresses()
    record = DataFolder(data_dir).read() if data_dir is not None else None
    if record is not None:
        found = dataclasses.replace(found, **record.addresses)
    return dataclasses.replace(found, **_from_environment())


def _from_environment() -> dict[str, str]:
    """Only what is set: a variable wins over a running stack, and a default does not."""
    urls = ClientSettings().model_dump(exclude={"token"}, exclude_none=True)
    chosen = {name.removesuffix("_url"): str(url).rstrip("/") for name, url in urls.items()}
    kafka, postgres = KafkaSettings(), PostgresSettings()
    if "bootstrap_servers" in kafka.model_fields_set:
        chosen["kafka"] = kafka.bootstrap_servers
    if "dsn" in postgres.model_fields_set:
        chosen["postgres"] = postgres.dsn
    return chosen
