"""A model version as the registry knows it, and the moves of its state."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from everloop_schemas.events import GateResult, ModelRef, ModelTrained

from everloop_registry.domain.deployment import Deployment, Refusal

__all__ = [
    "ARTIFACT_GATE",
    "Decision",
    "Model",
    "ModelState",
    "approval_refused",
    "rejection_refused",
    "stage_of",
]

ModelState = Literal["awaiting-approval", "approved", "rejected"]

ARTIFACT_GATE = "artifact"
"""The gate that no person may overrule: its bytes are missing or are not what was trained."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who decided on a version, when and why; `gates` speaks for itself as `by`."""

    by: str
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Model:
    """A trained version, its gates' results and the last decision on it."""

    trained: ModelTrained
    gates: tuple[GateResult, ...]
    state: ModelState
    decision: Decision

    @property
    def pipeline(self) -> str:
        """The pipeline that the version belongs to."""
        return self.trained.pipeline

    @property
    def version(self) -> int:
        """The version's number within its pipeline."""
        return self.trained.model_version

    @property
    def ref(self) -> ModelRef:
        """What serving needs in order to load the version."""
        return ModelRef(
            model_version=self.version,
            pipeline_version=self.trained.pipeline_version,
            artifact=self.trained.artifact,
        )

    @property
    def intact(self) -> bool:
        """Whether the artifact's bytes were found and matched their digest."""
        return all(gate.passed for gate in self.gates if gate.name == ARTIFACT_GATE)

    def decided(self, state: ModelState, decision: Decision) -> "Model":
        """The version after a further decision."""
        return replace(self, state=state, decision=decision)


def approval_refused(model: Model, deployment: Deployment, *, override: bool) -> Refusal | None:
    """Why a person may not make it the champion; `override` overrules failed gates, never the bytes."""
    failed = [gate.name for gate in model.gates if not gate.passed]
    if not model.intact:
        return Refusal(f"the artifact of version {model.version} is not intact", "train the version again")
    if failed and not override:
        return Refusal(
            f"version {model.version} failed its gates: {', '.join(failed)}",
            'to approve it all the same, give a reason and --override (over HTTP: "override": true)',
        )
    if deployment.champion_version == model.version:
        return Refusal(f"version {model.version} is the champion already", "nothing needs to be done")
    return None


def rejection_refused(model: Model) -> Refusal | None:
    """Why a person may not reject this version."""
    if model.state == "rejected":
        return Refusal(f"version {model.version} is rejected already", "nothing needs to be done")
    return None


def stage_of(model: Model, deployment: Deployment) -> str:
    """Where the version stands: champion, challenger, previous, archived, awaiting-approval or rejected."""
    alias = deployment.alias_of(model.version)
    if alias is not None:
        return alias
    return "archived" if model.state == "approved" else model.state
