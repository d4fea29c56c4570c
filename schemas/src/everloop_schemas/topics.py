"""Every topic of the platform, from one YAML file each (`topics/*.yaml`).

The platform creates its topics from these files, and a test holds each service's real subscriptions and
publications against the producers and consumers they name.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from everloop_schemas import events
from everloop_schemas.events import Event

__all__ = [
    "GROUPS",
    "TOPICS",
    "TopicSettings",
    "TopicSpec",
    "TopicVersion",
    "dead_letter_topic",
    "find",
    "pipeline_topics",
    "platform_topics",
    "publishes",
    "subscribes",
]

GROUPS = (
    "everloop-ingest",
    "everloop-ingest-quality",
    "everloop-feature",
    "everloop-trainer-data",
    "everloop-trainer-decisions",
    "everloop-registry",
    "everloop-monitor-data",
    "everloop-monitor-decisions",
)
"""The consumer groups; each has a dead-letter topic."""

TopicSettings = Mapping[str, tuple[int, dict[str, str]]]
"""Topics to create: name → (partitions, broker settings)."""


class TopicVersion(BaseModel):
    """One version of what a topic carries; version N+1 is a topic of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: int = Field(ge=1)
    model: str | None = None
    """The class in everloop_schemas.events, or null where the values are not an event's JSON."""
    value: str | None = None
    """What the values are, where there is no model."""
    examples: str | None = None
    """The directory of released examples."""


class TopicSpec(BaseModel):
    """What one topic file says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,120}$")
    description: str = Field(min_length=10)
    owner: str
    kind: Literal["data", "decision", "artifact", "dead-letter"]
    key: str
    producers: frozenset[str]
    consumers: frozenset[str]
    partitions: int = Field(ge=1)
    config: dict[str, str]
    versions: list[TopicVersion] = Field(min_length=1)

    def topic_for(self, pipeline: str | None) -> str:
        """The Kafka topic: a data topic has one per pipeline, the others are shared."""
        if self.kind != "data":
            return self.name
        if pipeline is None:
            raise ValueError(f"{self.name} is a data topic: it has one topic per pipeline")
        return f"{self.name}.{pipeline}"

    @property
    def pattern(self) -> str:
        """A regular expression that matches this topic for every pipeline, and no other topic."""
        suffix = r"\.[a-z][a-z0-9-]*" if self.kind == "data" else ""
        return f"^{re.escape(self.name)}{suffix}$".replace(r"\-", "-")

    @property
    def model(self) -> type[Event] | None:
        """The event that the newest version carries."""
        name = self.versions[-1].model
        return None if name is None else getattr(events, name)


class _Topics(Mapping[str, TopicSpec]):
    """The topic files, read when they are first asked for."""

    def __getitem__(self, name: str) -> TopicSpec:
        return _read_all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_read_all())

    def __len__(self) -> int:
        return len(_read_all())


TOPICS: Mapping[str, TopicSpec] = _Topics()
"""Every topic by its base name."""


@cache
def _read_all() -> Mapping[str, TopicSpec]:
    folder = files("everloop_schemas").joinpath("topics")
    texts = [entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    specs = [TopicSpec.model_validate(yaml.safe_load(text)) for text in texts]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}


def publishes(service: str) -> set[str]:
    """Base names of the topics that name `service` as a producer."""
    return {spec.name for spec in TOPICS.values() if service in spec.producers}


def subscribes(service: str) -> set[str]:
    """Base names of the topics that name `service` as a consumer."""
    return {spec.name for spec in TOPICS.values() if service in spec.consumers}


def dead_letter_topic(group: str) -> str:
    """Where a consumer group puts what it cannot read."""
    return f"{group}-dlq"


def platform_topics() -> TopicSettings:
    """The topics that exist once: decisions, artifacts, dead letters."""
    shared = (spec for spec in TOPICS.values() if spec.kind != "data")
    return {spec.name: (spec.partitions, spec.config) for spec in shared}


def pipeline_topics(pipeline: str, partitions: int) -> TopicSettings:
    """The data topics of one pipeline, equally partitioned: they are joined partition by partition."""
    data = (spec for spec in TOPICS.values() if spec.kind == "data")
    return {spec.topic_for(pipeline): (partitions, spec.config) for spec in data}


def find(topic: str) -> tuple[TopicSpec, str | None] | None:
    """The file and the pipeline of a Kafka topic's name, or None where it is not ours.

    Example:
        >>> find("ingest-record-accepted-v1.flight-delay")[1]
        'flight-delay'
    """
    name, _, pipeline = topic.partition(".")
    spec = TOPICS.get(name)
    if spec is None or not re.match(spec.pattern, topic):
        return None
    return spec, pipeline or None
