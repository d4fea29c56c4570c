"""What the registry reads from the environment."""

from everloop_kernel.settings import HttpSettings
from pydantic import Field, PositiveFloat
from pydantic_settings import SettingsConfigDict

__all__ = ["RegistrySettings"]


class RegistrySettings(HttpSettings):
    """Where the registry listens and how long it waits for a model's bytes."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_REGISTRY_")

    http_port: int = Field(8004, ge=0, le=65535, description="0 takes a free port")
    artifact_timeout_seconds: PositiveFloat = Field(
        20.0, description="how long a trained model's bytes may take to be found on their topic"
    )
