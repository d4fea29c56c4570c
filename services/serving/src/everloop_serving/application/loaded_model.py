"""A model that can answer: everything one arm needs, put together once and never changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from everloop_features import Compiled, Encoder, compile  # noqa: A004  (like re.compile)
from everloop_schemas.events import ModelRef, Value
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import Pipeline, from_definition
from everloop_schemas.topics import TOPICS
from opentelemetry.trace import SpanContext
from pydantic import ValidationError

from everloop_serving.application.ports import Engine, Explainer, ModelRefused, OnlineState
from everloop_serving.domain.artifact import Artifact, Manifest
from everloop_serving.domain.explanations import Explanation, Wording
from everloop_serving.domain.inputs import Inputs, Row

__all__ = ["Blueprint", "LoadedModel"]

_OUTPUTS = {"binary": "probability", "number": "prediction"}


@dataclass(frozen=True)
class Blueprint:
    """What an artifact says about its model, checked and compiled, before the model itself is loaded."""

    reference: ModelRef
    artifact: Artifact
    pipeline: Pipeline
    compiled: Compiled
    encoder: Encoder

    @classmethod
    def of(cls, reference: ModelRef, artifact: Artifact) -> "Blueprint":
        """Compile the pipeline version that the model was trained with.

        Raises:
            ModelRefused: when manifest, definition and deployment do not agree.
        """
        manifest = artifact.manifest
        if manifest.pipeline_version != reference.pipeline_version:
            raise ModelRefused(
                f"the artifact belongs to pipeline version {manifest.pipeline_version}, "
                f"the deployment says {reference.pipeline_version}"
            )
        pipeline, compiled = _compiled(manifest)
        columns = [(feature.name, feature.type) for feature in manifest.features]
        if columns != list(zip(compiled.names, compiled.types, strict=True)):
            raise ModelRefused("the model's feature types are not those of its pipeline version")
        if manifest.task != pipeline.label.type:
            raise ModelRefused(f"the model's task is {manifest.task}, the label's {pipeline.label.type}")
        encoder = Encoder(
            {"name": feature.name, "type": feature.type, "categories": feature.categories}
            for feature in manifest.features
        )
        return cls(reference, artifact, pipeline, compiled, encoder)

    def golden_rows(self) -> list[list[float]]:
        """The encoded rows of the golden predictions; raises ModelRefused for values of another type."""
        try:
            return [self.encoder.row(golden.values) for golden in self.artifact.manifest.golden]
        except (ValueError, TypeError, OverflowError) as error:
            raise ModelRefused(f"a golden prediction's values do not fit the features: {error}") from error

    def check_golden(self, outputs: Sequence[float], where: str) -> None:
        """Compare bit for bit; raises ModelRefused."""
        expected = [golden.output for golden in self.artifact.manifest.golden]
        for index, (output, golden) in enumerate(zip(outputs, expected, strict=True)):
            if output.hex() != golden.hex():
                raise ModelRefused(f"golden prediction {index} is {output!r} {where}, not {golden!r}")


def _compiled(manifest: Manifest) -> tuple[Pipeline, Compiled]:
    """The pipeline with its features in the model's order: canonical JSON has sorted the definition's."""
    try:
        pipeline = from_definition(manifest.definition)
    except ValidationError as error:
        raise ModelRefused(f"the artifact's pipeline definition cannot be read: {error}") from error
    expressions = pipeline.features
    if expressions.keys() != {feature.name for feature in manifest.features}:
        raise ModelRefused("the model's features are not those of its pipeline version")
    ordered = {feature.name: expressions[feature.name] for feature in manifest.features}
    pipeline = pipeline.model_copy(update={"features": ordered})
    compiled = compile(pipeline)
    if isinstance(compiled, list):
        raise ModelRefused(f"the artifact's features do not compile: {compiled[0].message}")
    return pipeline, compiled


class LoadedModel:
    """One model version, ready on the event loop's thread."""

    def __init__(
        self,
        blueprint: Blueprint,
        engine: Engine,
        state: OnlineState,
        *,
        most_rows: int,
        explainer: Callable[[bytes], Explainer],
    ) -> None:
        pipeline = blueprint.pipeline
        self.reference = blueprint.reference
        self.name = pipeline.pipeline
        self.model_version = blueprint.reference.model_version
        self.pipeline_version = blueprint.reference.pipeline_version
        self.inputs = Inputs.of(pipeline, most_rows=most_rows)
        self.output_name = _OUTPUTS[pipeline.label.type]
        self.topic = TOPICS["serving-prediction-made-v1"].topic_for(self.name)
        self.state = state
        self.load_span: SpanContext | None = None
        """Where predictions' spans link to; None without telemetry."""
        self.key_fields = tuple(pipeline.partition_by)
        self.feature_names = blueprint.compiled.names
        self.partitions = pipeline.partitions
        self._vector = blueprint.compiled.vector
        self._encode = blueprint.encoder.row
        self._predict = engine.predict
        self.dataset = blueprint.artifact.manifest.dataset
        self._wording = Wording.of(pipeline)
        self._model_text = blueprint.artifact.model_text
        self._make_explainer = explainer

    def vector(self, fields: Mapping[str, Any], event_time_us: int) -> list[Value]:
        """The features of an observation with these fields, from the state as it is."""
        return self._vector(fields, event_time_us, self.state.reader)

    def answer(self, rows: Sequence[Row]) -> tuple[list[list[Value]], list[float]]:
        """The rows' vectors and the model's outputs for them."""
        vectors = [self.vector(row.fields, row.event_time_us) for row in rows]
        return vectors, self.outputs(vectors)

    def outputs(self, vectors: Sequence[list[Value]]) -> list[float]:
        """The model's outputs for vectors."""
        encode = self._encode
        return self._predict([encode(values) for values in vectors])

    def explain(self, vectors: Sequence[list[Value]]) -> list[Explanation]:
        """Why the model answers these vectors as it does; always in the same thread."""
        parts = self._explainer.contributions([self._encode(values) for values in vectors])
        return [self._wording.explanation(*pair) for pair in zip(vectors, parts, strict=True)]

    @cached_property
    def _explainer(self) -> Explainer:
        """Loaded for the first explanation: a second copy of the model for those who ask for one."""
        return self._make_explainer(self._model_text)

    def key_and_partition(self, row: Row) -> tuple[bytes, int]:
        """Where the row's records lie, and so its prediction."""
        key = key_bytes([row.fields.get(name) for name in self.key_fields])
        return key, partition_of(key, self.partitions)
