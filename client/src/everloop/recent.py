"""The newest decision events, as Kafka has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from everloop_kernel.kafka_reading import read_to_end
from everloop_kernel.settings import KafkaSettings
from everloop_schemas import cloudevents
from everloop_schemas.events import DataArrived, Event
from everloop_schemas.topics import TOPICS, TopicSpec

__all__ = ["RecentEvent", "recent_events", "summary"]

_TOLD = ("model_version", "run_id", "trigger", "reason", "kind", "champion", "loaded", "version")


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """One event, in a line."""

    at: datetime
    name: str
    pipeline: str
    what: str


async def recent_events(kafka: KafkaSettings, count: int) -> list[RecentEvent]:
    """The newest events of all decision topics, oldest first."""
    topics = [spec for spec in TOPICS.values() if spec.kind == "decision" and spec.model is not None]
    found = [event for spec in topics for event in await _newest(kafka, spec, count)]
    return sorted(found, key=lambda event: event.at)[-count:]


async def _newest(kafka: KafkaSettings, spec: TopicSpec, count: int) -> Sequence[RecentEvent]:
    pages = read_to_end(kafka, TopicPartition(spec.name, 0), last=count)
    return [
        told for page in [page async for page in pages] for record in page if (told := _tell(spec, record))
    ]


def _tell(spec: TopicSpec, record: ConsumerRecord) -> RecentEvent | None:
    model = spec.model
    event = cloudevents.decode(model, record.value, record.headers) if model else None
    if not isinstance(event, Event):
        return None
    at = datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return RecentEvent(at, spec.name.rsplit("-v", 1)[0], str(getattr(event, "pipeline", "")), summary(event))


def summary(event: Event) -> str:
    """What an event says, in a line."""
    if isinstance(event, DataArrived):
        blocked = f", blocked: {event.blocked_reason}" if event.blocked else ""
        return (
            f"partition {event.partition} holds {event.observations} observations and {event.labels} labels "
            f"in total{blocked}"
        )
    fields = event.model_dump(mode="json")
    return " ".join(f"{name}={_short(fields[name])}" for name in _TOLD if fields.get(name) is not None)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("kind") or value.get("model_version")
    return str(value)[:60]
