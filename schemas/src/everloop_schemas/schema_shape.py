"""A JSON Schema reduced to what it accepts: references inlined, words for people left out."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["shape", "text"]

_FOR_PEOPLE = {"title", "description", "examples", "$schema", "$id", "$comment", "$defs", "deprecated"}
_NAMED = {"properties", "patternProperties", "dependentSchemas"}
"""Keywords whose keys are names, not keywords."""


def shape(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What `schema` accepts, as one tree; a schema that contains itself keeps its inner reference."""
    reduced = _reduce(schema, schema.get("$defs", {}), ())
    assert isinstance(reduced, dict)
    return reduced


def text(schema: Any) -> str:
    """One text for one shape, to compare by."""
    return json.dumps(schema, sort_keys=True)


def _reduce(schema: Any, parts: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    if isinstance(schema, list):
        return [_reduce(item, parts, inside) for item in schema]
    if not isinstance(schema, dict):
        return schema
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    if name in parts and name not in inside:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _reduce({**parts[name], **beside}, parts, (*inside, name))
    kept = {key: _value(key, value, parts, inside) for key, value in schema.items() if key not in _FOR_PEOPLE}
    return {**kept, "enum": [kept.pop("const")]} if "const" in kept else kept


def _value(keyword: str, value: Any, parts: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    if keyword in ("default", "enum", "const"):
        return value
    if keyword in _NAMED and isinstance(value, dict):
        return {name: _reduce(inner, parts, inside) for name, inner in value.items()}
    return _reduce(value, parts, inside)
