"""What the trainer reads from the environment."""

from everloop_kernel.settings import HttpSettings
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

__all__ = ["TrainerSettings"]


class TrainerSettings(HttpSettings):
    """Where the trainer listens, and how it stores and works."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_TRAINER_")

    http_port: int = Field(8003, ge=0, le=65535, description="0 takes a free port")
    segment_rows: PositiveInt = Field(20_000, description="staged rows of a partition that become a segment")
    lease_seconds: PositiveFloat = Field(
        10.0, description="after this a run of a dead instance is taken over"
    )
