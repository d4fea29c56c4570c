"""The compatibility check: every kind of change, and what it says about it."""

from copy import deepcopy
from typing import Any

import pytest
from everloop_schemas.check import Baseline, check
from everloop_schemas.compatibility import Change, Order, compare
from everloop_schemas.events import ModelTrained, RecordAccepted
from everloop_schemas.json_schemas import event_schema, pipeline_schema

BASE: dict[str, Any] = {
    "type": "object",
    "required": ["id", "arm", "rows"],
    "properties": {
        "id": {"type": "string", "pattern": "^a"},
        "arm": {"type": "string", "enum": ["champion", "challenger"]},
        "rows": {"type": "integer", "minimum": 0},
        "share": {"type": "number", "default": 0, "maximum": 1},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "at": {"type": "string", "format": "date-time"},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
        "cut": {"type": "object", "additionalProperties": {"type": "integer"}},
        "names": {"type": "object", "patternProperties": {"^[a-z]+$": {"type": "string"}}},
        "part": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
    },
    "$defs": {"Part": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
}


def changed(*steps: str, **values: Any) -> dict[str, Any]:
    """BASE with `values` set at the place that `steps` lead to; a value of None takes the key away."""
    schema = deepcopy(BASE)
    place = schema
    for step in steps:
        place = place[step]
    for key, value in values.items():
        if value is None:
            del place[key]
        else:
            place[key] = value
    return schema


def found(new: dict[str, Any], old: dict[str, Any] = BASE) -> list[tuple[str, str, str]]:
    return [(change.path, change.kind, change.rule) for change in compare("event", old, new)]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (changed("properties", share=None), ("$.share", "breaking", "field-removed")),
        (
            changed("properties", extra={"type": "string"}) | {"required": [*BASE["required"], "extra"]},
            ("$.extra", "breaking", "required-field-added"),
        ),
        (changed(required=["id", "arm", "rows", "share"]), ("$.share", "breaking", "field-now-required")),
        (changed(required=["id", "arm"]), ("$.rows", "breaking", "field-now-optional")),
        (changed("properties", "share", type="integer"), ("$.share", "breaking", "type-narrowed")),
        (changed("properties", "rows", type="number"), ("$.rows", "breaking", "type-widened")),
        (changed("properties", note={"type": "string"}), ("$.note", "breaking", "type-narrowed")),
        (
            changed(
                "properties", note={"anyOf": [*BASE["properties"]["note"]["anyOf"], {"type": "integer"}]}
            ),
            ("$.note", "breaking", "type-widened"),
        ),
        (
            changed(
                "properties", at={"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}
            ),
            ("$.at", "breaking", "type-widened"),
        ),
        (changed("properties", "arm", enum=["champion"]), ("$.arm", "breaking", "values-removed")),
        (
            changed("properties", "arm", enum=["champion", "challenger", "x"]),
            ("$.arm", "breaking", "values-added"),
        ),
        (changed("properties", "arm", enum=None), ("$.arm", "breaking", "values-added")),
        (changed("properties", "at", enum=["2013"]), ("$.at", "breaking", "values-removed")),
        (
            changed("properties", arm={"type": "string", "const": "champion"}),
            ("$.arm", "breaking", "values-removed"),
        ),
        (changed("properties", "id", pattern="^b"), ("$.id", "breaking", "pattern-changed")),
        (changed("properties", "id", pattern=None), ("$.id", "breaking", "pattern-changed")),
        (changed("properties", "at", format="date"), ("$.at", "breaking", "format-changed")),
        (changed("properties", "rows", minimum=1), ("$.rows", "breaking", "bound-narrowed")),
        (changed("properties", "rows", minimum=-1), ("$.rows", "breaking", "bound-widened")),
        (changed("properties", "rows", maximum=9), ("$.rows", "breaking", "bound-narrowed")),
        (changed("properties", "share", maximum=None), ("$.share", "breaking", "bound-widened")),
        (changed("properties", "share", default=1), ("$.share", "breaking", "default-changed")),
        (
            changed("$defs", "Part", "properties", name={"type": "integer"}),
            ("$.parts[].name", "breaking", "type-narrowed"),
        ),
        (
            changed("properties", "cut", additionalProperties={"type": "string"}),
            ("$.cut.*", "breaking", "type-narrowed"),
        ),
        (
            changed("properties", "cut", additionalProperties=True),
            ("$.cut.*", "breaking", "additional-opened"),
        ),
        (changed(additionalProperties=False), ("$.*", "breaking", "additional-closed")),
        (
            changed("properties", names={"type": "object", "patternProperties": {}}),
            ("$.names.*", "breaking", "pattern-changed"),
        ),
        (changed("properties", "id", **{"not": {"const": "a0"}}), ("$.id", "unclassifiable", "not")),
        (changed(oneOf=[{"type": "object"}]), ("$", "unclassifiable", "oneOf")),
        (
            changed("properties", "parts", prefixItems=[{"type": "string"}]),
            ("$.parts", "unclassifiable", "prefixItems"),
        ),
        (
            changed("properties", note={"anyOf": [{"type": "integer"}, {"type": "boolean"}]}),
            ("$.note", "unclassifiable", "anyOf"),
        ),
        (changed(required=[*BASE["required"], "ghost"]), ("$", "unclassifiable", "required")),
    ],
)
def test_what_breaks_somebody_is_found(new: dict[str, Any], expected: tuple[str, str, str]) -> None:
    """A change that slips through stops a consumer that nobody touched."""
    assert expected in found(new)


@pytest.mark.parametrize(
    "new",
    [
        changed("properties", extra={"type": "string"}),
        changed("properties", extra={"$ref": "#/$defs/Part"}),
        changed("$defs", "Part", "properties", note={"type": "string", "default": ""}),
    ],
)
def test_an_optional_field_may_come(new: dict[str, Any]) -> None:
    """If nothing could be added, every improvement would be a new topic."""
    changes = compare("event", BASE, new)
    assert {change.kind for change in changes} == {"compatible"}
    assert {change.order for change in changes} == {Order.PRODUCERS}


def test_words_and_references_are_no_change() -> None:
    """Renaming a class or mending a description must not look like a change of the contract."""
    renamed = changed(
        title="Other", description="better words", **{"$defs": {"Piece": BASE["$defs"]["Part"]}}
    )
    renamed["properties"]["parts"]["items"] = BASE["$defs"]["Part"] | {"description": "a piece"}
    renamed["properties"]["part"]["anyOf"][0] = {"$ref": "#/$defs/Piece"}
    assert found(renamed) == []


def test_a_field_named_like_an_annotation_is_a_field() -> None:
    """`description` and `title` are ordinary field names in our events."""
    old = {"type": "object", "properties": {"title": {"type": "string"}, "description": {"type": "string"}}}
    new = {"type": "object", "properties": {"title": {"type": "integer"}}}
    assert ("$.description", "breaking", "field-removed") in found(new, old)
    assert ("$.title", "breaking", "type-narrowed") in found(new, old)


def test_a_schema_that_contains_itself_is_compared() -> None:
    tree = {
        "$ref": "#/$defs/Tree",
        "$defs": {"Tree": {"type": "object", "properties": {"sub": {"$ref": "#/$defs/Tree"}}}},
    }
    grown = deepcopy(tree)
    grown["$defs"]["Tree"]["properties"]["size"] = {"type": "integer"}  # type: ignore[index]
    assert found(tree, tree) == []
    assert ("$.size", "compatible", "optional-field-added") in found(grown, tree)


def test_a_pipeline_file_may_be_read_more_widely() -> None:
    """People write it and we read it: a new rollout mode breaks nobody, a mode taken away does."""
    old, new = pipeline_schema(), deepcopy(pipeline_schema())
    new["$defs"]["Rollout"]["properties"]["mode"]["enum"].append("blue-green")
    wider = compare("pipeline", old, new, only_we_read=True)
    assert [(change.kind, change.order) for change in wider] == [("compatible", Order.ANY)]
    narrower = compare("pipeline", new, old, only_we_read=True)
    assert [change.kind for change in narrower] == ["breaking"]


def test_the_order_of_the_rollout_is_said_in_plain_words() -> None:
    (change,) = compare("event", BASE, changed("properties", "arm", enum=["champion", "challenger", "x"]))
    assert str(change.order).startswith("consumers first")
    assert "event: $.arm" in str(change)


def _report(
    name: str, old: dict[str, Any] | None, new: dict[str, Any] | None
) -> tuple[bool, str, list[Change]]:
    before = {} if old is None else {f"{name}.schema.json": old}
    after = {} if new is None else {f"{name}.schema.json": new}
    report = check(Baseline(before, {}), after)
    return report.passed, report.order(), report.changes


def test_a_report_takes_the_most_careful_order() -> None:
    optional = changed("properties", extra={"type": "string"})
    assert _report("e", BASE, optional)[:2] == (True, str(Order.PRODUCERS))
    optional["properties"]["id"]["not"] = {}
    passed, order, changes = _report("e", BASE, optional)
    assert (passed, order, len(changes)) == (False, str(Order.UNKNOWN), 2)


def test_an_event_may_come_and_never_go() -> None:
    assert _report("e", None, BASE)[0]
    assert not _report("e", BASE, None)[0]


def test_our_own_models_are_seen_to_change() -> None:
    """The check must understand every keyword that pydantic writes for our events."""
    old = event_schema(ModelTrained)
    new = deepcopy(old)
    new["properties"]["metrics"]["items"] = {"$ref": "#/$defs/SliceEvidence"}
    assert any(change.kind == "breaking" for change in compare("m", old, new))
    assert all(change.kind != "unclassifiable" for change in compare("m", old, event_schema(RecordAccepted)))
