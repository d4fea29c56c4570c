"""Ingest's own settings."""

from everloop_kernel.settings import HttpSettings
from pydantic import Field, PositiveInt
from pydantic_settings import SettingsConfigDict

__all__ = ["IngestSettings"]


class IngestSettings(HttpSettings):
    """Where the HTTP edge listens and how much it takes."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_INGEST_", env_ignore_empty=True, extra="ignore")

    http_port: int = Field(8001, ge=0, le=65535, description="0 takes a free port")
    max_body_bytes: PositiveInt = Field(8 << 20, description="largest body of one request")
    max_bodies_bytes: PositiveInt = Field(
        64 << 20, description="bodies of all requests in flight; more get 429"
    )
