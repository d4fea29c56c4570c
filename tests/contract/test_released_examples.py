"""Every released example, read by today's code: records like these stay in the log for ever."""

import json
from typing import Any

import pytest
from everloop_schemas.cloudevents import decode, encode
from everloop_schemas.events import ArtifactChunk, DeploymentChanged, Event
from everloop_schemas.examples import broken, digests, examples, manifest, unlisted
from everloop_schemas.json_schemas import event_models, event_schema
from everloop_schemas.pipeline import from_definition, to_definition
from everloop_schemas.signing import signed_bytes
from everloop_schemas.strict_json import strict_json
from everloop_schemas.topics import TOPICS
from jsonschema import Draft202012Validator

CASES = [
    pytest.param(model, data, id=f"{topic}/{name}")
    for topic, model in event_models().items()
    for name, data in examples(topic)
]


def _headers(model: type[Event]) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"test"),
        ("ce_type", model.type_name().encode()),
    ]


def _read(model: type[Event], document: Any) -> Event:
    if model is ArtifactChunk:  # its value is bytes, not JSON
        event: Event = model.model_validate(document)
        value, headers = encode(event, id="1", source="test")
    else:
        value, headers = json.dumps(document).encode(), _headers(model)
    found = decode(model, value, headers)
    assert isinstance(found, model), found
    return found


@pytest.mark.parametrize(("model", "data"), CASES)
def test_every_example_is_read(model: type[Event], data: bytes) -> None:
    """A consumer that cannot read yesterday's records cannot replay."""
    assert _read(model, json.loads(data)) == model.model_validate_json(data)


@pytest.mark.parametrize(("model", "data"), CASES)
def test_unknown_fields_are_ignored(model: type[Event], data: bytes) -> None:
    """A producer that is rolled out first must not stop the consumers."""
    document = json.loads(data)
    grown = {**document, "x_new": {"y": [1]}}
    assert _read(model, grown) == _read(model, document)


@pytest.mark.parametrize(("model", "data"), CASES)
def test_unknown_fields_deep_inside_are_ignored(model: type[Event], data: bytes) -> None:
    document = json.loads(data)
    parts = {
        "trigger",
        "dataset",
        "artifact",
        "champion",
        "challenger",
        "metrics",
        "gates",
        "violations",
        "evidence",
        "pinned",
    }
    grown = {key: _grow_parts(value) if key in parts else value for key, value in document.items()}
    assert _read(model, grown) == _read(model, document)


def _grow_parts(value: Any) -> Any:
    if isinstance(value, list):
        return [_grow_parts(item) for item in value]
    return {**value, "x_new": 1} if isinstance(value, dict) else value


@pytest.mark.parametrize(("model", "data"), CASES)
def test_every_example_meets_its_schema(model: type[Event], data: bytes) -> None:
    """The JSON Schema is what people in other languages build against."""
    Draft202012Validator(event_schema(model)).validate(json.loads(data))


@pytest.mark.parametrize(("model", "data"), CASES)
def test_every_example_survives_a_round_trip(model: type[Event], data: bytes) -> None:
    event = model.model_validate_json(data)
    assert decode(model, *encode(event, id="1", source="test")) == event


@pytest.mark.parametrize("topic", event_models())
def test_every_event_has_a_minimal_and_a_full_example(topic: str) -> None:
    assert {"minimal.json", "full.json"} <= {name for name, _ in examples(topic)}


@pytest.mark.parametrize("topic", event_models())
def test_the_minimal_example_has_only_what_is_required(topic: str) -> None:
    """Otherwise nobody would notice that a default is missing."""
    (minimal,) = (json.loads(data) for name, data in examples(topic) if name == "minimal.json")
    assert set(minimal) == set(event_schema(event_models()[topic])["required"])


def test_inbound_examples_are_strict_json() -> None:
    inbound = examples("producer-record-published-v1")
    assert len(inbound) >= 2
    assert all(isinstance(strict_json(data), dict) for _, data in inbound)


def test_examples_are_only_added() -> None:
    present = digests()
    assert list(broken(manifest(), present)) == []
    assert list(unlisted(manifest(), present)) == []


def test_examples_stand_where_the_topic_files_say() -> None:
    for name, spec in TOPICS.items():
        assert (spec.versions[-1].examples is not None) is bool(examples(name)), name


def test_defined_pipelines_are_read() -> None:
    for _, data in examples("registry-pipeline-defined-v1"):
        definition = json.loads(data)["definition"]
        assert to_definition(from_definition(definition)) == definition


def test_what_was_signed_stays_signed() -> None:
    """A default that is added to the model must not change the bytes of a signature that exists."""
    for _, data in examples(DeploymentChanged.topic):
        document = json.loads(data)
        assert signed_bytes(document) == signed_bytes({**document, "signature": "x"})
