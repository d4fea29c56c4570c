"""What the application needs from outside, and how that fails."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from everloop_features import Compiled, StateReader
from everloop_schemas.events import ArtifactRef

__all__ = [
    "Artifacts",
    "Cache",
    "Deployments",
    "Engine",
    "Explainer",
    "Keys",
    "ModelRefused",
    "NotNow",
    "OnlineState",
    "Sandbox",
    "States",
    "Trial",
    "Untrusted",
]


class ModelRefused(Exception):  # noqa: N818  (a verdict on the model)
    """This version must not be served, now or on another try; the message says why."""


class NotNow(Exception):  # noqa: N818  (a state of the world)
    """It cannot be had now; another try may succeed."""


class Untrusted(Exception):  # noqa: N818  (a verdict on an event)
    """No key that this instance trusts has signed the deployment."""


class Artifacts(Protocol):
    """Where a model's bytes come from."""

    async def fetch(self, artifact: ArtifactRef) -> bytes:
        """The bytes with that digest, verified.

        Raises:
            ModelRefused: when what is published under the digest is not what it names.
            NotNow: when it cannot be had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What a model did in the sandbox."""

    outputs: list[float]
    """LightGBM's, of the rows that were given."""
    fast_engine: str | None
    """None: the fast engine gave LightGBM's bits on this model. Else why it does not answer for it."""


class Sandbox(Protocol):
    """A process that may die of a model."""

    async def trial(
        self, model_text: bytes, *, task: str, features: int, rows: Sequence[Sequence[float]]
    ) -> Trial:
        """Load the model and answer encoded rows.

        Raises:
            ModelRefused: when the model is unsound.
        """
        ...


class Engine(Protocol):
    """A loaded model, for one thread."""

    def predict(self, rows: Sequence[list[float]]) -> list[float]:
        """The outputs of encoded rows; ValueError for a row of another width than the model's."""
        ...


class Explainer(Protocol):
    """A loaded model that takes its answers apart, for one thread."""

    def contributions(self, rows: Sequence[list[float]]) -> list[list[float]]:
        """What each feature contributes to the raw score [rows][features + 1]; the last is the base value."""
        ...


class OnlineState(Protocol):
    """The feature state of one pipeline version, as it arrives."""

    @property
    def reader(self) -> StateReader:
        """What vectors are computed from."""
        ...

    def age_seconds(self) -> float | None:
        """Age of the newest state seen, wall clock; None when none was seen."""
        ...


class States(Protocol):
    """Where feature state comes from."""

    async def open(self, pipeline: str, version: int, compiled: Compiled, *, wait: bool) -> OnlineState:
        """The state; with `wait`, read to its end where that is possible in time."""
        ...

    def keep_only(self, pipeline: str, versions: set[int]) -> None:
        """Forget a pipeline's other versions."""
        ...


class Keys(Protocol):
    """Who may say what is served."""

    def verify(self, document: Mapping[str, Any]) -> None:
        """Check a deployment as it was received; raises Untrusted."""
        ...


class Deployments(Protocol):
    """Deployments that outlive the process."""

    def save(self, pipeline: str, signed: bytes) -> None:
        """Keep a deployment that was loaded."""
        ...

    def load(self) -> Iterator[bytes]:
        """All that were kept."""
        ...


class Cache(Protocol):
    """Artifacts that outlive the process."""

    def prune(self, used: Collection[str]) -> None:
        """Forget old artifacts that are not used."""
        ...
