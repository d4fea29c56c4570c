"""Settings, read from the environment: one class a concern, one variable a field.

A service adds its own in `everloop_<service>/settings.py`:

    class RegistrySettings(HttpSettings):
        model_config = SettingsConfigDict(env_prefix="EVERLOOP_REGISTRY_")
        http_port: int = 8004

A value that does not fit raises `ConfigurationError` naming the variable, never a traceback.
"""

import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from everloop_kernel.errors import ConfigurationError

__all__ = ["HttpSettings", "KafkaSettings", "PlatformSettings", "PostgresSettings", "Settings"]

METADATA_MAX_AGE_MS = 5000
"""How soon a new pipeline's topics are seen by a pattern subscription that nobody has told of them."""


class Settings(BaseSettings):
    """Base of all settings: a bad value is reported by its variable's name."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_", env_ignore_empty=True, extra="ignore")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise self._unusable(error) from error
        except SettingsError as error:
            raise ConfigurationError(str(error), "Lists and mappings are written as JSON") from error

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable that sets `field`."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def _unusable(cls, error: ValidationError) -> ConfigurationError:
        lines = [
            f"{cls.variable(str(problem['loc'][0]) if problem['loc'] else '?')}"
            f"={_shown(problem['input'])} is refused: {problem['msg']}"
            for problem in error.errors()
        ]
        return ConfigurationError("; ".join(lines), "Correct the environment and start again")


def _addresses(text: str) -> str:
    if not re.fullmatch(r"\s*[^\s,]+:[0-9]{1,5}\s*(,\s*[^\s,]+:[0-9]{1,5}\s*)*", text):
        raise ValueError("write host:port, several separated by commas")
    return text


def _http_url(text: str) -> str:
    found = urlsplit(text)
    if found.scheme not in {"http", "https"} or not found.hostname or found.query or found.fragment:
        raise ValueError("write http://host:port or https://host:port, and a path if there is one")
    return text


class KafkaSettings(Settings):
    """How to reach the Kafka cluster."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_KAFKA_")

    bootstrap_servers: Annotated[str, AfterValidator(_addresses)] = Field(
        "127.0.0.1:9092", description="comma-separated host:port"
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = Field(None, description="certificates to trust; the system's when unset")
    session_timeout_ms: PositiveInt = Field(
        10_000, description="a member silent for longer loses its partitions"
    )

    def client_options(self) -> dict[str, Any]:
        """Arguments that every aiokafka client takes: producer, consumer and admin."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "metadata_max_age_ms": METADATA_MAX_AGE_MS,
            "security_protocol": self.security_protocol,
            "ssl_context": self.ssl_context(),
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password.get_secret_value() if self.sasl_password else None,
        }

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or None for an unencrypted protocol."""
        if "SSL" not in self.security_protocol:
            return None
        try:
            return ssl.create_default_context(cafile=str(self.ssl_cafile) if self.ssl_cafile else None)
        except OSError as error:
            raise ConfigurationError(
                f"{self.variable('ssl_cafile')}={self.ssl_cafile} cannot be read: {error.strerror}",
                "Name a readable PEM file",
            ) from error


class PostgresSettings(Settings):
    """How to reach the database."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_POSTGRES_")

    dsn: str = "postgresql://everloop@127.0.0.1:5433/everloop"
    pool_size: PositiveInt = 8


class PlatformSettings(Settings):
    """What every process of the platform shares."""

    data_dir: Path = Path(".everloop")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    tokens_file: Path | None = Field(None, description="JSON lines of hashed bearer tokens")
    otlp_endpoint: Annotated[str, AfterValidator(_http_url)] | None = Field(
        None, description="base URL of an OTLP/HTTP collector; unset: no telemetry"
    )
    trace_ratio: float = Field(1.0, ge=0, le=1, description="share of new traces that are sampled")
    dead_letter_limit_share: float = Field(
        0.1, ge=0, le=1, description="dead letters a group may have among its recent records"
    )
    dead_letter_limit_count: PositiveInt = Field(
        1000, description="dead letters among the recent records below which the share does not matter"
    )
    commit_interval_ms: PositiveInt = Field(
        50, description="the most that a record waits for others to share its Kafka transaction"
    )
    max_backoff_seconds: PositiveFloat = Field(
        30.0, description="how long a transient failure is retried before the process ends"
    )


class HttpSettings(Settings):
    """Where a service listens. Subclass it with the service's prefix and port."""

    http_host: str = "127.0.0.1"
    http_port: int = Field(0, ge=0, le=65535, description="0 takes a free port")


def _shown(value: object) -> str:
    """A refused value, shortened; a mapping is not repeated because it may hold secrets."""
    if isinstance(value, (dict, Sequence)) and not isinstance(value, str):
        return "…"
    return repr(value)[:80]
