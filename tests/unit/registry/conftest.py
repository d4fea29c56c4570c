"""The registry's state in memory: the second implementation of its `Work` port, and what decisions need."""

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from everloop_registry.adapters.signing_key import SigningKey
from everloop_registry.application.ports import Office
from everloop_registry.domain.audit import AuditEntry
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.models import Model
from everloop_registry.domain.pipelines import PipelineVersion
from everloop_schemas.events import (
    ArtifactRef,
    DataProfiled,
    DatasetRef,
    Event,
    MetricEvidence,
    ModelLoaded,
    ModelTrained,
    Trigger,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)
PIPELINE_TIME = datetime(2013, 2, 1, tzinfo=UTC)


@dataclass
class MemoryWork:
    """`application.ports.Book` in dictionaries; nothing is undone when a use case fails half-way."""

    versions: dict[tuple[str, int], PipelineVersion] = field(default_factory=dict)
    kept: dict[tuple[str, int], Model] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    trail: list[AuditEntry] = field(default_factory=list)
    profiled: list[DataProfiled] = field(default_factory=list)
    loads_by_id: dict[str, ModelLoaded] = field(default_factory=dict)
    emitted: list[tuple[str, Event]] = field(default_factory=list)

    @asynccontextmanager
    async def kept_alive(self):
        yield

    async def lock(self, pipeline: str) -> None:
        """One task at a time: nothing to hold off."""

    async def current_pipeline(self, pipeline: str) -> PipelineVersion | None:
        own = [version for (name, _), version in self.versions.items() if name == pipeline]
        return max(own, key=lambda version: version.version, default=None)

    async def pipeline_version(self, pipeline: str, version: int) -> PipelineVersion | None:
        return self.versions.get((pipeline, version))

    async def add_pipeline_version(self, version: PipelineVersion) -> None:
        self.versions[version.pipeline, version.version] = version

    async def model(self, pipeline: str, version: int) -> Model | None:
        return self.kept.get((pipeline, version))

    async def save_model(self, model: Model) -> None:
        self.kept[model.pipeline, model.version] = model

    async def deployment(self, pipeline: str) -> Deployment:
        return self.deployments.get(pipeline, Deployment(pipeline))

    async def save_deployment(self, deployment: Deployment) -> None:
        self.deployments[deployment.pipeline] = deployment

    async def pipelines(self) -> list[PipelineVersion]:
        newest = {name: version for (name, _), version in sorted(self.versions.items())}
        return list(newest.values())

    async def pipeline_versions(self, pipeline: str) -> list[PipelineVersion]:
        return [self.versions[key] for key in sorted(self.versions, reverse=True) if key[0] == pipeline]

    async def models(self, pipeline: str) -> list[Model]:
        return [self.kept[key] for key in sorted(self.kept, reverse=True) if key[0] == pipeline]

    async def audit(self, pipeline: str) -> list[AuditEntry]:
        return [entry for entry in self.trail if entry.deed.pipeline == pipeline]

    async def loads(self, pipeline: str) -> list[ModelLoaded]:
        return [loaded for loaded in self.loads_by_id.values() if loaded.pipeline == pipeline]

    async def add_profile(self, profiled: DataProfiled) -> None:
        if profiled.run_id not in {one.run_id for one in self.profiled}:
            self.profiled.append(profiled)

    async def profiles(self, pipeline: str, limit: int) -> list[DataProfiled]:
        own = [one for one in self.profiled if one.pipeline == pipeline]
        return sorted(own, key=lambda one: one.profiled_at, reverse=True)[:limit]

    async def last_audit(self, pipeline: str) -> AuditEntry | None:
        own = [entry for entry in self.trail if entry.deed.pipeline == pipeline]
        return own[-1] if own else None

    async def add_audit(self, entry: AuditEntry) -> None:
        self.trail.append(entry)

    async def add_load(self, loaded: ModelLoaded) -> None:
        self.loads_by_id[loaded.id] = loaded

    def emit(self, event: Event, *, id: str, key: str) -> None:  # noqa: A002
        self.emitted.append((id, event))

    def names(self) -> list[str]:
        """The emitted events' class names, in order."""
        return [type(event).__name__ for _, event in self.emitted]


@dataclass
class MemoryArtifacts:
    """Artifacts that are intact unless a test says otherwise."""

    problem: str | None = None

    async def problem_with(self, artifact: ArtifactRef) -> str | None:
        return self.problem


@pytest.fixture
def work() -> MemoryWork:
    return MemoryWork()


@pytest.fixture
def artifacts() -> MemoryArtifacts:
    return MemoryArtifacts()


@pytest.fixture
def signing_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
def office(signing_key, artifacts) -> Office:
    return Office(signing_key, artifacts, lambda: NOW)


@pytest.fixture
def define(work):
    """Keep a pipeline version: `define(gates=[...], mode="manual")`."""

    def _define(version: int = 1, gates=(), mode: str = "direct", pipeline: str = "p") -> None:
        definition = {"pipeline": pipeline, "gates": list(gates), "rollout": {"mode": mode}}
        work.versions[pipeline, version] = PipelineVersion(
            pipeline, version, definition, "0" * 64, 4, NOW, "kim"
        )

    return _define


@pytest.fixture
def trained():
    """A `ModelTrained` by version: `trained(2, champion_version=1, candidate=0.3)`."""

    def _trained(
        version: int = 1, *, champion_version: int | None = None, candidate: float = 0.4, **changes
    ) -> ModelTrained:
        given = {
            "run_id": f"run-{version}",
            "pipeline": "p",
            "pipeline_version": 1,
            "model_version": version,
            "trigger": Trigger(kind="new-data", event_id=f"event-{version}", reason="rows"),
            "dataset": DatasetRef(
                sha256="d" * 64,
                rows=100,
                train_rows=80,
                test_rows=20,
                cut={0: 50, 1: 50},
                first_event_time=PIPELINE_TIME,
                last_event_time=PIPELINE_TIME,
            ),
            "artifact": ArtifactRef(sha256=f"{version:064x}", bytes=10, chunks=1),
            "champion_version": champion_version,
            "metrics": [
                MetricEvidence(
                    name="log_loss",
                    candidate=candidate,
                    champion=champion_version and 0.42,
                    prior=0.5,
                    rows=20,
                )
            ],
            "parameters": {"trees": 10},
            "libraries": {},
            "seconds": {},
            "trained_at": PIPELINE_TIME,
        }
        return ModelTrained(**(given | changes))

    return _trained
