"""One model version, from its digest to its first answer: each step must hold before the next."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from everloop_kernel.errors import one_line
from everloop_schemas.events import ModelRef

from everloop_serving.application.loaded_model import Blueprint, LoadedModel
from everloop_serving.application.ports import Artifacts, Engine, Explainer, ModelRefused, Sandbox, States
from everloop_serving.domain.artifact import BadArtifact, read_artifact

__all__ = ["ModelLoader"]

_WARM_UP_ROUNDS = 5
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """Fetches, checks, tries in a sandbox, loads, compares golden predictions and warms up."""

    artifacts: Artifacts
    sandbox: Sandbox
    engine: Callable[[bytes], Engine]
    fast_engine: Callable[[bytes], Engine]
    """Asked only for models that the sandbox saw it answer as `engine` does."""
    explainer: Callable[[bytes], Explainer]
    states: States
    most_rows: int

    async def load(self, pipeline: str, reference: ModelRef, *, wait_for_state: bool) -> LoadedModel:
        """A model that answers.

        Raises:
            ModelRefused: this version must not be served.
            NotNow: its bytes cannot be had now.
        """
        blueprint = await self._blueprint(pipeline, reference)
        engine = await self._proven(blueprint)
        state = await self.states.open(
            pipeline, reference.pipeline_version, blueprint.compiled, wait=wait_for_state
        )
        return LoadedModel(blueprint, engine, state, most_rows=self.most_rows, explainer=self.explainer)

    async def _blueprint(self, pipeline: str, reference: ModelRef) -> Blueprint:
        data = await self.artifacts.fetch(reference.artifact)
        try:
            artifact = read_artifact(data)
            if artifact.manifest.pipeline != pipeline:
                raise ModelRefused(f"the artifact belongs to the pipeline {artifact.manifest.pipeline!r}")
            return Blueprint.of(reference, artifact)
        except BadArtifact as error:
            raise ModelRefused(str(error)) from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            _log.exception("version %d of %s cannot be read", reference.model_version, pipeline)
            raise ModelRefused(f"the artifact cannot be read: {one_line(error)}") from error

    async def _proven(self, blueprint: Blueprint) -> Engine:
        """Load it twice, first where it can do no harm; both must answer what the trainer's Booster did."""
        artifact = blueprint.artifact
        rows = blueprint.golden_rows()
        trial = await self.sandbox.trial(
            artifact.model_text,
            task=artifact.manifest.task,
            features=len(artifact.manifest.features),
            rows=rows,
        )
        blueprint.check_golden(trial.outputs, "in the sandbox")
        if trial.fast_engine is not None:
            _log.info("%s is answered by LightGBM itself: %s", artifact.manifest.pipeline, trial.fast_engine)
        make = self.engine if trial.fast_engine is not None else self.fast_engine
        engine = await asyncio.to_thread(make, artifact.model_text)
        for _ in range(_WARM_UP_ROUNDS):
            blueprint.check_golden(engine.predict(rows), "after loading")
        return engine
