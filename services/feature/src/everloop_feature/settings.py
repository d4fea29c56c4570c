"""What the feature service reads from the environment."""

from everloop_kernel.settings import HttpSettings
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import SettingsConfigDict

__all__ = ["FeatureSettings"]


class FeatureSettings(HttpSettings):
    """Where the service shows its health, and the size of its transactions."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_FEATURE_")

    http_port: int = Field(8002, ge=0, le=65535, description="0 takes a free port")
    max_records: PositiveInt = Field(
        8000, description="log records in one transaction, where so many wait; fewer make a smaller one"
    )
    replay_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="part of the process's time for replays of changed pipelines, beside live records",
    )
    accept_partial_state: bool = Field(
        default=False,
        description="compute state that cannot be read again from a log whose beginning Kafka has dropped: "
        "windows that reach further back then hold too little",
    )
    unknown_pipeline_seconds: PositiveFloat = Field(
        15.0, description="how long records wait for their pipeline's definition before the process ends"
    )
