"""The models that serving holds, as Triton's model repository extension speaks of them.

Deployments decide what is loaded: the registry signs them, and a client's wish is no signature. So the index
answers truly, loading what is loaded is granted, and everything else is refused with the way to go.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from everloop_serving.application.models import Models

__all__ = ["ModelState", "NotHere", "Repository"]


class NotHere(Exception):  # noqa: N818  (a rule, not a defect)
    """It is done elsewhere; the message says where."""


class ModelState(NamedTuple):
    """One version, or a model without any (an empty version) and why."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str


class Repository:
    """What is loaded."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def index(self, *, ready: bool, sees: Callable[[str], bool]) -> list[ModelState]:
        """Every version of every model that the caller sees; with `ready` only those that answer."""
        found = [state for name in self._models if sees(name) for state in self._states(name)]
        return [state for state in found if state.state == "READY"] if ready else found

    def _states(self, name: str) -> list[ModelState]:
        arms = self._models.arms(name)
        if arms is None or not arms.by_version:
            why = self._models.pending.get(name, "no version is deployed")
            return [ModelState(name, "", "UNAVAILABLE", why)]
        return [ModelState(name, str(version), "READY", "") for version in sorted(arms.by_version)]

    def load(self, name: str) -> None:
        """Granted where the model answers; raises UnknownModel or ModelNotReady as a request to it would."""
        self._models.version(name, None)

    def unload(self, name: str) -> None:
        """Never granted; raises UnknownModel, ModelNotReady or NotHere."""
        self._models.version(name, None)
        raise NotHere(
            f"{name!r} stays: its deployment decides what is loaded; "
            "`everloop rollback` or `everloop reject` change that"
        )
