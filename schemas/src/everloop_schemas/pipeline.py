"""The pipeline file, version 1: one use case, declared in one YAML file.

`load` reads what a person wrote and answers with every problem in it; `to_definition` and `from_definition`
are the normalised JSON form that travels in `registry-pipeline-defined-v1`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from everloop_schemas.events import PipelineName
from everloop_schemas.pipeline_parts import (
    Action,
    Expectation,
    Expression,
    FieldSpec,
    Gate,
    Label,
    Model,
    Monitor,
    Name,
    Observation,
    PipelineTest,
    Quality,
    Rollout,
    Rows,
    Rule,
    Search,
    Section,
    ServiceLevels,
    Training,
    When,
)
from everloop_schemas.pipeline_rules import METRICS, check
from everloop_schemas.problems import Path, Problem, from_pydantic, with_lines
from everloop_schemas.yaml_lines import read_yaml

__all__ = [
    "Action",
    "Expectation",
    "FieldSpec",
    "Gate",
    "Label",
    "Model",
    "Monitor",
    "Observation",
    "Pipeline",
    "PipelineTest",
    "Problem",
    "Quality",
    "Rollout",
    "Rows",
    "Rule",
    "Search",
    "ServiceLevels",
    "Training",
    "When",
    "from_definition",
    "load",
    "locate",
    "to_definition",
]

_FEATURE_TYPES = ("category", "number", "integer", "boolean")
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_LATE_RULES = "broken-rules"
"""The type of the one error in which pydantic carries every cross-key problem."""


class Pipeline(Section):
    """One use case: fields, label, features, training, gates, rollout, monitoring."""

    pipeline: PipelineName
    """The pipeline's name, in topics and addresses: lower-case letters, digits and '-'."""
    team: str = ""
    description: str = ""
    partition_by: Annotated[list[str], Field(min_length=1, max_length=8)]
    """Fields whose values decide a record's log partition: records with equal values keep their order."""
    partitions: Annotated[int, Field(ge=1, le=1024)] = 4
    """Partitions of each of the pipeline's data topics; fixed once it is applied."""
    observation: Observation
    label: Label
    features: dict[Name, Expression] = Field(default_factory=dict)
    """Features by name; without any, each field is a feature."""
    training: Training = Training()
    gates: list[Gate] = Field(default_factory=list, min_length=1)
    """Without it: better than the prior and than the champion."""
    rollout: Rollout = Rollout()
    monitor: Monitor = Monitor()
    quality: Quality | None = None
    """Without it the defaults of its keys hold."""
    tests: list[PipelineTest] = Field(default_factory=list)

    @model_validator(mode="before")
    @classmethod
    def _defaults_that_depend(cls, data: Any) -> Any:
        """Features and gates that nobody wrote follow from the fields and the label."""
        if not isinstance(data, Mapping):
            return data
        filled = {key: value for key, value in data.items() if value is not None}
        if not filled.get("features"):
            filled["features"] = _fields_as_features(filled)
        if "gates" not in filled:
            filled["gates"] = _default_gates(filled)
        return filled

    @model_validator(mode="after")
    def _rules(self) -> "Pipeline":
        problems = check(self)
        if problems:
            text = "; ".join(map(str, problems))
            raise PydanticCustomError(_LATE_RULES, "{text}", {"text": text, "problems": problems})
        return self


def _fields_as_features(data: Mapping[str, Any]) -> dict[str, str]:
    fields = _get(_get(data, "observation"), "fields")
    return {
        name: name for name, spec in fields.items() if _is_name(name) and _get_type(spec) in _FEATURE_TYPES
    }


def _is_name(name: Any) -> bool:
    # a broken name is reported where it was written, and not again as a feature's
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def _default_gates(data: Mapping[str, Any]) -> list[dict[str, str]]:
    metric = METRICS.get(str(_get_type(data.get("label"))), METRICS["binary"])[0]
    return [{"metric": metric, "better_than": "prior"}, {"metric": metric, "better_than": "champion"}]


def _get(data: Any, key: str) -> Mapping[str, Any]:
    """A section of what somebody wrote, empty where it is no mapping: the models say so later."""
    if isinstance(data, BaseModel):
        data = dict(data)
    value = data.get(key) if isinstance(data, Mapping) else None
    if isinstance(value, BaseModel):
        return dict(value)
    return value if isinstance(value, Mapping) else {}


def _get_type(spec: Any) -> Any:
    return spec.get("type") if isinstance(spec, Mapping) else getattr(spec, "type", None)


def load(text: str, filename: str = "pipeline.yaml") -> Pipeline | list[Problem]:
    """Read a pipeline file; the pipeline, or every problem found in it. Never raises.

    Expressions are only text here: `everloop_features.compile` checks them.

    Example:
        >>> [str(problem) for problem in load("pipeline: x", "x.yaml")][0]
        'x.yaml:1: partition_by: is required and not there [required]; add it'
    """
    document = read_yaml(text)
    problems = document.problems
    if not problems and not isinstance(document.value, dict):
        mend = "start from an example: its first line is 'pipeline: NAME'"
        problems = [Problem("", 1, "", "type", "a pipeline file is a mapping", mend)]
    if not problems:
        try:
            return Pipeline.model_validate(document.value)
        except ValidationError as error:
            problems = list(_problems(error))
    return with_lines(problems, document.lines, filename)


def locate(problems: Sequence[Problem], text: str, filename: str) -> list[Problem]:
    """Fill in the lines of problems that were found later (in expressions), from the file's text."""
    return with_lines(problems, read_yaml(text).lines, filename)


def _problems(error: ValidationError) -> Iterator[Problem]:
    for detail in error.errors(include_url=False):
        if detail["type"] == _LATE_RULES:
            yield from detail["ctx"]["problems"]
        else:
            yield from_pydantic(detail, _known_keys)


def _known_keys(path: Path) -> Sequence[str]:
    """The keys that the mapping at `path` may have: found by walking the models."""
    annotation: Any = Pipeline
    for step in path:
        annotation = _step_into(annotation, step)
    model = _model_in(annotation)
    return tuple(model.model_fields) if model else ()


def _step_into(annotation: Any, step: str | int) -> Any:
    model = _model_in(annotation)
    if isinstance(annotation, type) and model is annotation:
        field = model.model_fields.get(str(step))
        return field.annotation if field else None
    return _model_in(annotation) if not isinstance(annotation, type) else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation is or holds, as in `dict[str, FieldSpec]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _model_in(inner)
        if found:
            return found
    return None


def to_definition(pipeline: Pipeline) -> dict[str, Any]:
    """The normalised form: JSON values, every default written out, optional keys without a value left out."""
    return pipeline.model_dump(mode="json")


def from_definition(definition: Mapping[str, Any]) -> Pipeline:
    """Read what `to_definition` wrote, perhaps by a newer version: keys unknown here are ignored.

    Raises:
        pydantic.ValidationError: for a definition that breaks a rule.
    """
    return Pipeline.model_validate(definition, extra="ignore")
