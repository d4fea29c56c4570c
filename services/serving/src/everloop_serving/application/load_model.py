"""One model version, from its digest to its first answer: each step must hold before the next."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from everloop_schemas.events import ModelRef

from everloop_serving.application.loaded_model import Blueprint, LoadedModel
from everloop_serving.application.ports import Artifacts, Engine, ModelRefused, RowPredictor, Sandbox, States
from everloop_serving.domain.artifact import BadArtifact, read_artifact

__all__ = ["ModelLoader"]

_WARM_UP_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """Fetches, checks, tries in a sandbox, loads, compares golden predictions and warms up."""

    artifacts: Artifacts
    sandbox: Sandbox
    engine: Callable[[bytes], Engine]
    states: States
    most_rows: int

    async def load(self, pipeline: str, reference: ModelRef, *, wait_for_state: bool) -> LoadedModel:
        """A model that answers.

        Raises:
            ModelRefused: this version must not be served.
            NotNow: its bytes cannot be had now.
        """
        blueprint = await self._blueprint(pipeline, reference)
        predictor = await self._proven(blueprint)
        state = await self.states.open(
            pipeline, reference.pipeline_version, blueprint.compiled, wait=wait_for_state
        )
        return LoadedModel(blueprint, predictor, state, most_rows=self.most_rows)

    async def _blueprint(self, pipeline: str, reference: ModelRef) -> Blueprint:
        data = await self.artifacts.fetch(reference.artifact)
        try:
            artifact = read_artifact(data)
        except BadArtifact as error:
            raise ModelRefused(str(error)) from error
        if artifact.manifest.pipeline != pipeline:
            raise ModelRefused(f"the artifact belongs to the pipeline {artifact.manifest.pipeline!r}")
        return Blueprint.of(reference, artifact)

    async def _proven(self, blueprint: Blueprint) -> RowPredictor:
        """Load it twice, first where it can do no harm; both must answer what the trainer's Booster did."""
        artifact = blueprint.artifact
        rows = blueprint.golden_rows()
        tried = await self.sandbox.outputs(
            artifact.model_text,
            task=artifact.manifest.task,
            features=len(artifact.manifest.features),
            rows=rows,
        )
        blueprint.check_golden(tried, "in the sandbox")
        engine = await asyncio.to_thread(self.engine, artifact.model_text)
        predictor = engine.row_predictor()
        blueprint.check_golden([predictor.predict(row) for row in rows], "after loading")
        for row in rows * _WARM_UP_ROUNDS:
            predictor.predict(row)
        return predictor
