"""Topic files, events and generated documents agree with one another."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from everloop_schemas import events
from everloop_schemas.asyncapi import asyncapi_document
from everloop_schemas.check import check, read_baseline
from everloop_schemas.events import Event
from everloop_schemas.generate import documents, outdated, source_folder
from everloop_schemas.json_schemas import event_models, event_schema, pipeline_schema
from everloop_schemas.pipeline import Pipeline, load
from everloop_schemas.topics import TOPICS
from jsonschema import Draft202012Validator

SERVICES = {"ingest", "feature", "trainer", "registry", "serving", "monitor"}
ROOT = source_folder().parent
PIPELINE_FILES = sorted(ROOT.glob("examples/*/pipeline.yaml"))


def test_every_event_has_a_topic_file_and_every_model_exists() -> None:
    """An event without a topic file would be sent to a topic that nobody created."""
    assert {model.topic: model for model in Event.__subclasses__()} == event_models()


def test_every_event_is_public() -> None:
    assert {model.__name__ for model in Event.__subclasses__()} <= set(events.__all__)


@pytest.mark.parametrize("name", TOPICS)
def test_a_topic_file_is_complete(name: str) -> None:
    """Who is called at night, who may write, who will read: the file says it."""
    spec = TOPICS[name]
    assert spec.owner in SERVICES
    assert spec.producers <= SERVICES | {"outside", "people"}
    assert spec.consumers <= SERVICES | {"people"}
    assert spec.producers
    assert spec.consumers
    assert spec.config
    assert all((version.model is None) != (version.value is None) for version in spec.versions)
    assert name.endswith(f"-v{spec.versions[-1].version}") or spec.kind == "dead-letter"


def test_documents_are_up_to_date() -> None:
    """`everloop-schemas generate` was forgotten: the committed documents promise something else."""
    assert list(outdated(documents(source_folder()), source_folder())) == []


def test_nothing_breaks_what_was_released() -> None:
    report = check(read_baseline(None, source_folder()))
    assert report.passed, [*map(str, report.changes), *report.examples]


@pytest.mark.parametrize("schema", [pipeline_schema(), *map(event_schema, event_models().values())])
def test_generated_schemas_are_json_schema(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", PIPELINE_FILES, ids=lambda path: path.parent.name)
def test_example_pipelines_are_valid(path: Path) -> None:
    """An editor must not underline what the platform accepts."""
    text = path.read_text("utf-8")
    assert isinstance(load(text, path.name), Pipeline)
    Draft202012Validator(pipeline_schema()).validate(yaml.safe_load(text))


def test_the_editors_schema_refuses_what_load_refuses() -> None:
    validator = Draft202012Validator(pipeline_schema())
    good = yaml.safe_load(PIPELINE_FILES[0].read_text("utf-8"))
    for key, value in {"partitions": 0, "label": {}, "colour": "red", "rollout": {"mode": "blue"}}.items():
        assert not validator.is_valid({**good, key: value}), key


def test_asyncapi_refers_only_to_what_it_holds() -> None:
    document = asyncapi_document()
    for reference in _references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
    assert json.loads(json.dumps(document)) == document


def test_asyncapi_names_every_sender_and_receiver() -> None:
    operations = asyncapi_document()["operations"]
    assert "ingest.send.ingest-record-accepted-v1" in operations
    assert "feature.receive.ingest-record-accepted-v1" in operations


def _references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [found for item in node for found in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [found for value in node.values() for found in _references(value)]
