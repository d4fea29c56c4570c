"""What people look up: runs, one observation with all that is known of it, why nothing trains."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from everloop_schemas.events import Cut, Trigger

from everloop_trainer.application.verify import Made
from everloop_trainer.domain.job import Outcome

__all__ = ["Book", "Found", "RunRecord"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as it stands. `created_at` and `ended_at` are wall clock."""

    run_id: str
    pipeline: str
    pipeline_version: int
    trigger: Trigger
    overrides: dict[str, Any]
    cut: Cut
    labels_at_cut: int
    pipeline_time: datetime
    state: str
    attempts: int
    model_version: int | None
    verdict: str | None
    outcome: Outcome | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Found:
    """Rows with one id. Each has partition, offset, event_time, known_at, and fields or values."""

    observation: dict[str, Any] | None
    vectors: list[dict[str, Any]]
    label: dict[str, Any] | None
    retraction: dict[str, Any] | None = None
    """What withdrew the observation, if something has."""


class Book(Protocol):
    """The trainer's records, for reading."""

    async def runs(self, pipeline: str | None, limit: int) -> list[RunRecord]:
        """The newest runs first."""
        ...

    async def run(self, run_id: str) -> RunRecord | None:
        """One run."""
        ...

    async def made(self, pipeline: str, model_version: int) -> Made | None:
        """How a model was made."""
        ...

    async def find(self, pipeline: str, observation_id: str) -> Found | None:
        """All that is recorded under an id; None while the pipeline is not known."""
        ...
