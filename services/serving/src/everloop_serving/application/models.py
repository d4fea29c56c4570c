"""The models that answer now. Replacing them is one assignment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from everloop_serving.application.loaded_model import LoadedModel
from everloop_serving.domain.routing import challenger_answers

__all__ = ["Arms", "Choice", "ModelNotReady", "Models", "UnknownModel"]


class UnknownModel(LookupError):  # noqa: N818  (the caller's mistake)
    """No such model or version is deployed."""


class ModelNotReady(Exception):  # noqa: N818  (a state, not a defect)
    """The model is deployed but cannot answer yet."""


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The model that answers a request, why, and how likely that was."""

    model: LoadedModel
    arm: Literal["champion", "challenger", "pinned"]
    propensity: float


@dataclass(frozen=True, slots=True)
class Arms:
    """All versions of one pipeline that are loaded."""

    revision: int
    champion: LoadedModel | None
    challenger: LoadedModel | None = None
    challenger_share: float = 0.0
    previous: LoadedModel | None = None
    """The champion before this one, ready for a rollback."""
    by_version: Mapping[int, LoadedModel] = field(default_factory=dict)
    """Champion, challenger, pinned and the previous champion."""

    def choose(self, pipeline: str, request_id: str) -> Choice | None:
        """The arm that a request without a version gets."""
        share = self.challenger_share if self.challenger is not None else 0.0
        if self.challenger is not None and challenger_answers(pipeline, request_id, share):
            return Choice(self.challenger, "challenger", share)
        if self.champion is None:
            return None
        return Choice(self.champion, "champion", 1.0 - share)


class Models:
    """Arms by pipeline."""

    def __init__(self) -> None:
        self._arms: dict[str, Arms] = {}
        self.pending: dict[str, str] = {}
        """Pipelines with a deployment that nothing answers for yet, and why."""

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._arms, *self.pending}))

    def arms(self, pipeline: str) -> Arms | None:
        """What is loaded for a pipeline."""
        return self._arms.get(pipeline)

    def replace(self, pipeline: str, arms: Arms) -> None:
        """Swap: requests that began with the old arms end with them."""
        self._arms[pipeline] = arms
        self.pending.pop(pipeline, None)

    def choose(self, pipeline: str, version: str | None, request_id: str) -> Choice:
        """The model that answers.

        A request that names a version is nobody's experiment: its arm is `pinned`, whichever version it is.

        Raises:
            UnknownModel: when neither name nor version is deployed.
            ModelNotReady: when it is, and nothing is loaded.
        """
        arms = self._arms.get(pipeline)
        if version is not None:
            return Choice(self.version(pipeline, version), "pinned", 1.0)
        choice = arms.choose(pipeline, request_id) if arms is not None else None
        if choice is None:
            raise self._missing(pipeline)
        return choice

    def version(self, pipeline: str, version: str | None) -> LoadedModel:
        """A version by its number, or the champion. Raises as `choose` does."""
        arms = self._arms.get(pipeline)
        if arms is None or (version is None and arms.champion is None):
            raise self._missing(pipeline)
        if version is None:
            assert arms.champion is not None
            return arms.champion
        found = arms.by_version.get(int(version)) if version.isdecimal() and len(version) < 10 else None  # noqa: PLR2004  (nine digits)
        if found is None:
            loaded = ", ".join(map(str, sorted(arms.by_version)))
            raise UnknownModel(f"version {version!r} of {pipeline!r} is not loaded; loaded are {loaded}")
        return found

    def _missing(self, pipeline: str) -> UnknownModel | ModelNotReady:
        if pipeline in self._arms or pipeline in self.pending:
            why = self.pending.get(pipeline, "no champion is deployed")
            return ModelNotReady(f"{pipeline!r} cannot answer yet: {why}")
        return UnknownModel(
            f"no model of {pipeline!r} is deployed: there is no such pipeline, or none of its models is "
            "approved yet; `everloop status` tells which"
        )
