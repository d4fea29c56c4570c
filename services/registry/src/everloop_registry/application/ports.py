"""What the use cases need from the outside: one transaction of state, a signer, the artifacts, a clock."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from everloop_schemas.events import ArtifactRef, DataProfiled, DeploymentChanged, Event, ModelLoaded
from everloop_schemas.pipeline import Pipeline

from everloop_registry.domain.audit import AuditEntry
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.models import Model
from everloop_registry.domain.pipelines import PipelineVersion

__all__ = ["Artifacts", "Book", "Clock", "Office", "Signer", "Topics", "Work"]

Clock = Callable[[], datetime]
"""The wall clock, UTC and aware: for what people do; what events cause takes its time from them."""


class Work(Protocol):
    """One transaction: all of it happens, its events included, or none of it."""

    def kept_alive(self) -> AbstractAsyncContextManager[None]:
        """Hold the transaction open while something else than the database is waited for."""

    async def lock(self, pipeline: str) -> None:
        """Hold off every other decision on the pipeline until the transaction ends."""

    async def current_pipeline(self, pipeline: str) -> PipelineVersion | None:
        """The newest version of a pipeline."""

    async def pipeline_version(self, pipeline: str, version: int) -> PipelineVersion | None:
        """One version of a pipeline."""

    async def add_pipeline_version(self, version: PipelineVersion) -> None:
        """Keep a new version."""

    async def model(self, pipeline: str, version: int) -> Model | None:
        """One model version."""

    async def save_model(self, model: Model) -> None:
        """Keep a version, new or decided anew."""

    async def deployment(self, pipeline: str) -> Deployment:
        """What is deployed; revision 0 when nothing ever was."""

    async def save_deployment(self, deployment: Deployment) -> None:
        """Keep the next revision."""

    async def last_audit(self, pipeline: str) -> AuditEntry | None:
        """The newest entry of the pipeline's audit trail."""

    async def add_audit(self, entry: AuditEntry) -> None:
        """Keep an entry."""

    async def add_load(self, loaded: ModelLoaded) -> None:
        """Keep that a serving instance holds a version, or could not load it; twice the same is once."""

    async def add_profile(self, profiled: DataProfiled) -> None:
        """Keep what the data of a run was like; twice the same is once."""

    def emit(self, event: Event, *, id: str, key: str) -> None:  # noqa: A002  (the envelope's name)
        """Publish the event when, and only when, the transaction commits."""


class Book(Work, Protocol):
    """A transaction that also answers what people look up."""

    async def pipelines(self) -> list[PipelineVersion]:
        """The newest version of every pipeline, by name."""

    async def pipeline_versions(self, pipeline: str) -> list[PipelineVersion]:
        """Every version of a pipeline, the newest first."""

    async def models(self, pipeline: str) -> list[Model]:
        """Every model version of a pipeline, the newest first."""

    async def audit(self, pipeline: str) -> list[AuditEntry]:
        """The pipeline's whole audit trail, the oldest entry first."""

    async def profiles(self, pipeline: str, limit: int) -> list[DataProfiled]:
        """What the data of the last trainings was like, the newest first."""

    async def loads(self, pipeline: str) -> list[ModelLoaded]:
        """What serving instances said about loading, the newest first."""


class Signer(Protocol):
    """Vouches for a deployment."""

    @property
    def key_id(self) -> str:
        """Which key signs."""

    def sign(self, event: DeploymentChanged) -> DeploymentChanged:
        """The event with this signer's key id and signature."""


class Artifacts(Protocol):
    """Where trained bytes are."""

    async def problem_with(self, artifact: ArtifactRef) -> str | None:
        """Fetch the bytes and check them; None when they are there and intact, else what is wrong."""


class Topics(Protocol):
    """Where a pipeline's data travels."""

    async def ensure(self, pipeline: Pipeline) -> None:
        """Create the pipeline's data topics that do not exist yet."""


@dataclass(frozen=True, slots=True)
class Office:
    """What every decision needs besides its transaction."""

    signer: Signer
    artifacts: Artifacts
    clock: Clock
