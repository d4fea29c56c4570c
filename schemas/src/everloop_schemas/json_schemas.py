"""The JSON Schema of each event and of the pipeline file, from their models."""

from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from everloop_schemas.durations import format_duration
from everloop_schemas.events import Event
from everloop_schemas.pipeline import Pipeline
from everloop_schemas.topics import TOPICS

__all__ = ["DIALECT", "component_schemas", "event_models", "event_schema", "pipeline_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Writes defaults as they would stand in a file: durations as `30d`, sections as mappings."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return format_duration(dft)
        if isinstance(dft, BaseModel):
            return dft.model_dump(mode="json")
        return super().encode_default(dft)


def event_models() -> dict[str, type[Event]]:
    """Every event by its topic's base name, sorted."""
    return {name: spec.model for name, spec in TOPICS.items() if spec.model is not None}


def event_schema(model: type[Event]) -> dict[str, Any]:
    """The JSON Schema that a consumer of `model` holds its values against."""
    schema = model.model_json_schema(schema_generator=_Generator)
    return {"$schema": DIALECT, **_without_titles(schema), "title": model.__name__}


def pipeline_schema() -> dict[str, Any]:
    """The JSON Schema of the pipeline file, for editors."""
    schema = _without_titles(Pipeline.model_json_schema(schema_generator=_Generator))
    return {"$schema": DIALECT, **_closed(schema), "title": "Everloop pipeline file"}


def component_schemas() -> dict[str, Any]:
    """The schemas of all events and their parts, referring to one another as AsyncAPI's components do."""
    models = [(model, "validation") for model in event_models().values()]
    _, schema = models_json_schema(
        models,  # type: ignore[arg-type]  # the literal is widened to text in a list
        ref_template="#/components/schemas/{model}",
        schema_generator=_Generator,
    )
    parts: dict[str, Any] = _without_titles(schema)["$defs"]
    return parts


def _without_titles(schema: Any, *, names: bool = False) -> Any:
    """Drop the titles that only repeat a field's name; `names` where the keys are names of fields."""
    if isinstance(schema, list):
        return [_without_titles(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value, names=not names and key in ("properties", "$defs"))
        for key, value in schema.items()
        if names or key != "title"
    }


def _closed(schema: Any) -> Any:
    """Names that break their pattern are wrong, not only unchecked."""
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    return {**closed, "additionalProperties": False} if "patternProperties" in closed else closed
