"""Ingest's own settings."""

from everloop_kernel.settings import HttpSettings
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

__all__ = ["IngestSettings"]


class IngestSettings(HttpSettings):
    """Where the HTTP edge listens and how much it takes."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_INGEST_", env_ignore_empty=True, extra="ignore")

    http_port: int = Field(8001, ge=0, le=65535, description="0 takes a free port")
    worker: bool = Field(default=True, description="whether this process also works off the inbound topics")
    max_body_bytes: PositiveInt = Field(
        8 << 20, description="largest body that is read at once, unpacked; NDJSON has no limit"
    )
    max_bodies_bytes: PositiveInt = Field(
        64 << 20, description="bodies of all requests in flight; more get 429"
    )
    max_waiting_bytes: PositiveInt = Field(
        32 << 20, description="records that may wait for the broker's acknowledgement; more get 429"
    )
    max_connections: PositiveInt = Field(2000, description="open connections; more get 503")
    idempotency_seconds: PositiveFloat = Field(
        3600, description="how long an answer is remembered by its Idempotency-Key"
    )
    idempotency_bytes: PositiveInt = Field(
        16 << 20, description="memory for these answers; beyond it the oldest are forgotten sooner"
    )
