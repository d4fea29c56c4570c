"""What the application needs from outside, and how that fails."""

from collections.abc import Sequence
from typing import Protocol

from everloop_schemas.events import ArtifactRef

__all__ = ["Artifacts", "Engine", "ModelRefused", "Sandbox"]


class ModelRefused(Exception):  # noqa: N818  (a verdict on the model)
    """This version must not be served, now or on another try; the message says why."""


class Artifacts(Protocol):
    """Where a model's bytes come from."""

    async def fetch(self, artifact: ArtifactRef) -> bytes:
        """The bytes with that digest, verified.

        Raises:
            ModelRefused: when what is published under the digest is not what it names.
            OSError: when it cannot be had now; another try may succeed.
        """
        ...


class Sandbox(Protocol):
    """A process that may die of a model."""

    async def outputs(
        self, model_text: bytes, *, task: str, features: int, rows: Sequence[Sequence[float]]
    ) -> list[float]:
        """Outputs for encoded rows.

        Raises:
            ModelRefused: when the model is unsound.
        """
        ...


class RowPredictor(Protocol):
    """Answers one encoded row at a time, on one thread."""

    def predict(self, row: Sequence[float]) -> float:
        """The output for one row."""
        ...

    def close(self) -> None:
        """Give the predictor's memory back."""
        ...


class Engine(Protocol):
    """A loaded model."""

    def row_predictor(self) -> RowPredictor:
        """A predictor for the calling thread."""
        ...

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """Outputs for many rows."""
        ...

    def close(self) -> None:
        """Give the model's memory back."""
        ...
