"""What the registry has decided: each pipeline's newest version, and the versions that models in use need."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from everloop_features import Compiled, compile  # noqa: A004  # like re.compile
from everloop_schemas.pipeline import from_definition

from everloop_feature.domain.partition import PartitionFeatures, PipelineVersion, UnusablePipelineError

__all__ = ["Pipelines", "UnusablePipelineError"]


@dataclass(slots=True)
class _Pipeline:
    newest: PipelineVersion | None = None
    deployed: frozenset[int] = frozenset()

    def computed(self) -> tuple[int, frozenset[int]] | None:
        """The version whose vectors are published, and all whose state is kept; None before the first."""
        return (self.newest.version, self.deployed | {self.newest.version}) if self.newest else None


class Pipelines:
    """The pipelines by name; `changed` is called with a name when other versions are to be computed."""

    def __init__(self, changed: Callable[[str], None], *, accept_partial: bool = False) -> None:
        self._changed = changed
        self._accept_partial = accept_partial
        self._pipelines: dict[str, _Pipeline] = {}
        self._defined = asyncio.Event()

    def define(self, name: str, version: int, definition: bytes) -> None:
        """A pipeline has a new version. Raises UnusablePipelineError."""
        pipeline = self._pipelines.setdefault(name, _Pipeline())
        before = pipeline.computed()
        pipeline.newest = read_version(version, definition)
        self._defined.set()
        self._defined = asyncio.Event()
        self._tell(name, pipeline, before)

    def deploy(self, name: str, versions: frozenset[int]) -> None:
        """Models of these pipeline versions are in use now."""
        pipeline = self._pipelines.setdefault(name, _Pipeline())
        before = pipeline.computed()
        pipeline.deployed = versions
        self._tell(name, pipeline, before)

    def features(self, name: str) -> PartitionFeatures | None:
        """What to compute for one of the pipeline's log partitions; None for an unknown pipeline."""
        pipeline = self._pipelines.get(name)
        if pipeline is None or pipeline.newest is None:
            return None
        partial = self._accept_partial
        return PartitionFeatures(pipeline.newest, pipeline.deployed, read_version, accept_partial=partial)

    async def wait_for(self, name: str) -> PartitionFeatures:
        """What to compute for a pipeline, as soon as it is defined."""
        while (features := self.features(name)) is None:
            await self._defined.wait()
        return features

    def _tell(self, name: str, pipeline: _Pipeline, before: tuple[int, frozenset[int]] | None) -> None:
        if pipeline.computed() != before:
            self._changed(name)


def read_version(version: int, definition: bytes) -> PipelineVersion:
    """A definition's JSON, compiled. Raises UnusablePipelineError with every problem."""
    try:
        document: dict[str, Any] = msgspec.json.decode(definition)
        compiled = compile(from_definition(document))
    except ValueError as error:
        raise UnusablePipelineError(f"the definition of version {version} cannot be read: {error}") from error
    if not isinstance(compiled, Compiled):
        raise UnusablePipelineError(f"version {version}: " + "; ".join(map(str, compiled)))
    return PipelineVersion(version, definition, compiled)
