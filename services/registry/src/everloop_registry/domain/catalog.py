"""What a pipeline's data is: its fields and features, who reads it, and how its versions differ."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from everloop_schemas.topics import TOPICS, TopicSpec

from everloop_registry.domain.pipelines import Definition

__all__ = ["Change", "FeatureUse", "catalog_features", "catalog_fields", "changes", "topics_of"]

_EVENT_TIME = "event_time"


@dataclass(frozen=True, slots=True)
class FeatureUse:
    """One feature, its expression, and the fields that it looks at, in the definition's order."""

    name: str
    expression: str
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs between two definitions; None where it is absent."""

    path: str
    before: Any
    after: Any


def catalog_features(definition: Definition) -> list[FeatureUse]:
    """Every feature with the fields behind it; what uses the label's value uses the label's fields."""
    observed, labelled = _fields(definition, "observation"), _fields(definition, "label")
    value: Mapping[str, str] = definition.get("label", {}).get("value") or {}
    own_time = definition.get("observation", {}).get(_EVENT_TIME, _EVENT_TIME)
    known = [own_time, *observed, *labelled]

    def used_by(expression: str) -> set[str]:
        names = {own_time if name == _EVENT_TIME else name for name in _names(expression)}
        behind = {name for label in names & value.keys() - labelled.keys() for name in used_by(value[label])}
        return names | behind

    return [
        FeatureUse(name, text, tuple(one for one in known if one in used_by(text)))
        for name, text in (definition.get("features") or {}).items()
    ]


def _names(expression: str) -> set[str]:
    """The names in an expression: an expression that was applied is Python's syntax."""
    tree = ast.parse(expression.strip(), mode="eval")
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}


def catalog_fields(definition: Definition) -> list[dict[str, Any]]:
    """Every field: its section, all that the file says of it, and the features that use it."""
    uses = catalog_features(definition)
    key = definition.get("partition_by") or []
    return [
        {
            "name": name,
            "of": section,
            **spec,
            "is_key": section == "observation" and name in key,
            "used_by": [use.name for use in uses if name in use.fields],
        }
        for section in ("observation", "label")
        for name, spec in _fields(definition, section).items()
    ]


def _fields(definition: Definition, section: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = definition.get(section, {}).get("fields") or {}
    return found


def topics_of(pipeline: str) -> list[dict[str, Any]]:
    """The topics that carry a pipeline's data and decisions, with who writes and who reads them."""
    return [_topic(spec, pipeline) for spec in TOPICS.values() if spec.kind in ("data", "decision")]


def _topic(spec: TopicSpec, pipeline: str) -> dict[str, Any]:
    return {
        "topic": spec.topic_for(pipeline),
        "kind": spec.kind,
        "description": spec.description,
        "producers": sorted(spec.producers),
        "consumers": sorted(spec.consumers),
    }


def changes(before: Definition, after: Definition) -> list[Change]:
    """Every key that differs, by its dotted path; lists are compared as a whole."""
    return list(_changes(before, after, ()))


def _changes(before: Any, after: Any, path: Sequence[str]) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _changes(before.get(name), after.get(name), [*path, str(name)])
    elif before != after:
        yield Change(".".join(path), before, after)
