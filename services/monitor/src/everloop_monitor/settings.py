"""What the monitor reads from the environment."""

from everloop_kernel.settings import HttpSettings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

__all__ = ["MonitorSettings"]


class MonitorSettings(HttpSettings):
    """Where the monitor listens."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_MONITOR_")

    http_port: int = Field(8000, ge=0, le=65535, description="0 takes a free port")
