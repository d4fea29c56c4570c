"""The AsyncAPI 3 document of the whole platform: channels, operations, messages, Kafka bindings."""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from everloop_schemas.json_schemas import component_schemas
from everloop_schemas.topics import TOPICS, TopicSpec

__all__ = ["asyncapi_document"]

_BINDING = {"bindingVersion": "0.5.0"}
_TOPIC_CONFIGURATION: dict[str, Callable[[str], Any]] = {
    "retention.ms": int,
    "retention.bytes": int,
    "delete.retention.ms": int,
    "max.message.bytes": int,
    "cleanup.policy": lambda policy: policy.split(","),
}
"""The broker settings that AsyncAPI's Kafka binding names, and how it writes them."""
_NAME = {"type": "string", "minLength": 1}
_HEADERS = {
    "type": "object",
    "description": "CloudEvents 1.0, binary mode",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {**_NAME, "description": "unique within the source; duplicates of the pair are dropped"},
        "ce_source": _NAME,
        "ce_type": _NAME,
        "ce_time": {"type": "string", "format": "date-time"},
        "traceparent": {"type": "string", "description": "W3C trace context"},
        "content-type": {"type": "string"},
    },
}


def asyncapi_document() -> dict[str, Any]:
    """The document as JSON values; the same code gives the same document."""
    events = {name: spec for name, spec in TOPICS.items() if spec.kind != "dead-letter"}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Everloop",
            "version": version("everloop-schemas"),
            "description": "Six services that keep tabular models fresh and talk only through these topics.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {name: _channel(spec) for name, spec in events.items()},
        "operations": {name: body for spec in events.values() for name, body in _operations(spec)},
        "components": {
            "schemas": component_schemas(),
            "messages": {name: _message(spec) for name, spec in events.items()},
        },
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": spec.topic_for("{pipeline}"),
        "title": spec.name,
        "description": spec.description,
        "messages": {spec.name: {"$ref": f"#/components/messages/{spec.name}"}},
        "bindings": {"kafka": _kafka(spec)},
        "x-everloop-owner": spec.owner,
    }
    if spec.kind == "data":
        channel["parameters"] = {"pipeline": {"description": "the pipeline's name"}}
    return channel


def _kafka(spec: TopicSpec) -> dict[str, Any]:
    named = {
        key: write(spec.config[key]) for key, write in _TOPIC_CONFIGURATION.items() if key in spec.config
    }
    others = {key: value for key, value in spec.config.items() if key not in named}
    binding = {"partitions": spec.partitions, "topicConfiguration": named, **_BINDING}
    return {**binding, "x-everloop-topic-configuration": others} if others else binding


def _operations(spec: TopicSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    for action, services in (("send", spec.producers), ("receive", spec.consumers)):
        for service in sorted(services):
            yield (
                f"{service}.{action}.{spec.name}",
                {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{spec.name}"},
                    "tags": [{"name": service}],
                },
            )


def _message(spec: TopicSpec) -> dict[str, Any]:
    message = {
        "name": spec.name,
        "title": spec.model.__name__ if spec.model else spec.name,
        "summary": spec.description,
        "headers": _HEADERS,
        "bindings": {"kafka": {"key": {"type": "string", "description": spec.key}, **_BINDING}},
    }
    if spec.kind == "artifact":
        return {**message, "contentType": "application/octet-stream"}
    if spec.model is None:
        return {**message, "description": spec.versions[-1].value}
    return {**message, "payload": {"$ref": f"#/components/schemas/{spec.model.__name__}"}}
