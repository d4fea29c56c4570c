"""What serving can be told by its environment: `EVERLOOP_SERVING_*`."""

from pathlib import Path
from typing import Literal

from everloop_kernel.settings import HttpSettings
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

__all__ = ["ServingSettings"]


class ServingSettings(HttpSettings):
    """Where serving listens and how much it holds."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_SERVING_", env_ignore_empty=True, extra="ignore")

    http_port: int = Field(8080, ge=0, le=65535, description="0 takes a free port")
    grpc_port: int | None = Field(8081, ge=0, le=65535, description="0 takes a free port")
    instance: str | None = Field(None, description="this replica's name in events; made once when unset")
    trusted_keys_dir: Path | None = Field(None, description="public keys; <data_dir>/keys when unset")
    max_body_bytes: PositiveInt = Field(32 << 20, description="largest request body")
    max_rows: PositiveInt = Field(16_384, description="most rows in one request")
    max_connections: PositiveInt = 10_000
    request_seconds: PositiveFloat = Field(15.0, description="how long a request may take to arrive")
    load_seconds: PositiveFloat = Field(30.0, description="how long a model may take to load in the sandbox")
    state_wait_seconds: PositiveFloat = Field(
        10.0, description="how long a swap waits for the feature state; then it serves with what is there"
    )
    engine: Literal["auto", "lightgbm"] = Field(
        "auto",
        description="auto: a faster one where it is installed and gives LightGBM's bits on the model",
    )
    publish_linger_seconds: PositiveFloat = Field(0.1, description="how long prediction events are collected")
    queue_events: PositiveInt = Field(100_000, description="prediction events held in memory")
    spool_bytes: PositiveInt = Field(
        1 << 30, description="prediction events held on disk while Kafka is away"
    )
