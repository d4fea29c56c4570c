"""What a stack runs and where it listens."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Self

from everloop_kernel.settings import Settings
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from everloop.embedded.ports import free_port

__all__ = ["SERVICES", "Ports", "ServiceSpec", "StackSettings", "setting_of"]


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One of the six services, started as `python -m everloop_<name>`."""

    name: str
    stage: int
    """Services of a stage start together, once those of the stage before are ready."""


SERVICES = (
    ServiceSpec("registry", 0),  # it defines the pipelines that all others read
    ServiceSpec("ingest", 1),
    ServiceSpec("feature", 1),
    ServiceSpec("trainer", 2),
    ServiceSpec("serving", 2),
    ServiceSpec("monitor", 2),
)


@dataclass(frozen=True)
class Ports:
    """Every port of a stack, on the loopback."""

    kafka: int = 9092
    postgres: int = 5433
    ingest: int = 8001
    feature: int = 8002
    trainer: int = 8003
    registry: int = 8004
    serving: int = 8080
    serving_grpc: int = 8081
    monitor: int = 8000

    @classmethod
    def free(cls) -> Self:
        """Ports that nobody uses right now: for tests, and for a second stack on one machine."""
        return cls(**{field.name: free_port() for field in dataclasses.fields(cls)})

    def of(self, services: tuple[str, ...]) -> dict[str, int]:
        """The ports that a stack of these services opens, by what listens there."""
        opened = {"kafka", "postgres", *services} | ({"serving_grpc"} if "serving" in services else set())
        return {name: port for name, port in dataclasses.asdict(self).items() if name in opened}


def setting_of(port: str) -> str:
    """The flag and the variable that change a port."""
    return f"--{port.replace('_', '-')}-port or EVERLOOP_STACK_{port.upper()}_PORT"


Port = Annotated[int, Field(ge=1, le=65535)]
_DEFAULTS = Ports()


class StackSettings(Settings):
    """Settings of the embedded stack."""

    model_config = SettingsConfigDict(env_prefix="EVERLOOP_STACK_")

    kafka_port: Port = _DEFAULTS.kafka
    postgres_port: Port = _DEFAULTS.postgres
    ingest_port: Port = _DEFAULTS.ingest
    feature_port: Port = _DEFAULTS.feature
    trainer_port: Port = _DEFAULTS.trainer
    registry_port: Port = _DEFAULTS.registry
    serving_port: Port = _DEFAULTS.serving
    serving_grpc_port: Port = _DEFAULTS.serving_grpc
    monitor_port: Port = _DEFAULTS.monitor
    fsync: Annotated[bool, Field(description="flush to disk before anything is acknowledged")] = True

    def ports(self) -> Ports:
        """The ports alone."""
        names = [field.name for field in dataclasses.fields(Ports)]
        return Ports(**{name: getattr(self, f"{name}_port") for name in names})
