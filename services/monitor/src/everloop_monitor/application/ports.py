"""What the use cases need of the database; `adapters.postgres` is the real one."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Protocol

from everloop_schemas.events import DeploymentChanged, DriftDetected, ModelTrained, PipelineDefined

from everloop_monitor.domain.rows import (
    DayLoss,
    DaySketch,
    LabelRow,
    ModelRow,
    PredictionRow,
    VerdictRow,
    WithdrawnRow,
)
from everloop_monitor.domain.sketch import Sketch

__all__ = ["Work"]


class Work(Protocol):
    """One transaction."""

    async def add_predictions(self, pipeline: str, rows: Sequence[PredictionRow]) -> int:
        """Keep answers, join those whose label is known; returns how many were joined."""
        ...

    async def add_labels(self, pipeline: str, rows: Sequence[LabelRow]) -> int:
        """Keep outcomes, join their answers; the newest `known_at` wins. Returns how many were joined."""
        ...

    async def withdraw(self, pipeline: str, rows: Sequence[WithdrawnRow]) -> None:
        """Separate answers from outcomes, for good: their observations are retracted."""
        ...

    async def add_sketches(self, pipeline: str, parts: Sequence[DaySketch]) -> None:
        """Append parts of days."""
        ...

    async def reach(self, pipeline: str, stream: str, partition: int, known_at: datetime) -> None:
        """Note how far a partition has come in pipeline time."""
        ...

    async def reached(self, pipeline: str, stream: str) -> Sequence[datetime]:
        """How far each partition has come."""
        ...

    async def definition(self, pipeline: str, version: int | None = None) -> Mapping[str, Any] | None:
        """A version's definition, the newest by default."""
        ...

    async def add_pipeline(self, event: PipelineDefined) -> None:
        """Keep a version."""
        ...

    async def add_model(self, event: ModelTrained) -> None:
        """Keep what a model was trained on."""
        ...

    async def set_champion(self, event: DeploymentChanged) -> None:
        """Follow the deployment, never backwards."""
        ...

    async def champions(self) -> Sequence[ModelRow]:
        """Every pipeline's champion, locked against another judge."""
        ...

    async def verdict(self, model: ModelRow, kind: str) -> VerdictRow | None:
        """The newest verdict of a kind on a model."""
        ...

    async def keep_verdict(self, model: ModelRow, verdict: VerdictRow) -> None:
        """Replace the verdict of its kind."""
        ...

    async def days(
        self, pipeline: str, version: int, first: date, last: date
    ) -> Mapping[date, Sequence[Sketch]]:
        """The sketches of whole days, a feature each in the order of the vector, parts added up."""
        ...

    async def merge_days(self, pipeline: str, version: int, last: date) -> None:
        """Keep one sketch for each finished day instead of its parts."""
        ...

    async def losses(self, model: ModelRow, task: str, last: date) -> Sequence[DayLoss]:
        """The model's daily losses as champion up to a day, oldest first."""
        ...

    def emit_drift(self, event: DriftDetected) -> None:
        """Publish after the commit."""
        ...
