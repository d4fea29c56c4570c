"""Follows the decisions of the loop as any other consumer could: from their Kafka topics."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord
from everloop_schemas import cloudevents, events
from everloop_schemas.topics import TOPICS

WATCHED: dict[str, type[events.Event]] = {
    model.topic: model
    for model in (
        events.PipelineDefined,
        events.RunStarted,
        events.RunFailed,
        events.ModelTrained,
        events.ModelApproved,
        events.ModelRejected,
        events.DeploymentChanged,
        events.ModelLoaded,
        events.DriftDetected,
    )
}
E = TypeVar("E", bound=events.Event)


@dataclass(frozen=True)
class Seen:
    """A decision and when the broker had it, in seconds since 1970."""

    event: events.Event
    at: float


@dataclass
class Watch:
    """Every decision since the topics began."""

    bootstrap_servers: str
    tell: Callable[[Seen], None]
    seen: list[Seen] = field(default_factory=list)

    async def run(self) -> None:
        """Read until cancelled."""
        topics = [TOPICS[name].topic_for(None) for name in WATCHED]
        consumer = AIOKafkaConsumer(
            *topics,
            bootstrap_servers=self.bootstrap_servers,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            async for record in consumer:
                self._take(record)
        finally:
            await consumer.stop()

    def _take(self, record: ConsumerRecord) -> None:
        event = cloudevents.decode(WATCHED[record.topic], record.value, record.headers)
        if isinstance(event, cloudevents.Rejected):
            raise TypeError(f"{record.topic} holds what is no event: {event.reason}")
        seen = Seen(event, record.timestamp / 1000)
        self.seen.append(seen)
        self.tell(seen)

    def of(self, model: type[E]) -> list[E]:
        """The decisions of one kind, oldest first."""
        return [seen.event for seen in self.seen if isinstance(seen.event, model)]

    def at(self, event: events.Event) -> float:
        """When the broker had this decision."""
        return next(seen.at for seen in self.seen if seen.event is event)


def sentence(event: events.Event) -> str | None:  # noqa: PLR0911 - one line a kind of event
    """One line for a person, or nothing where it would only repeat."""
    match event:
        case events.PipelineDefined():
            return f"pipeline {event.pipeline} v{event.version} defined"
        case events.RunStarted():
            return f"run started by {event.trigger.kind}: {event.trigger.reason}"
        case events.RunFailed():
            return f"run failed: {event.reason}"
        case events.ModelTrained():
            loss = next((m for m in event.metrics if m.name == "log_loss"), None)
            told = f", log loss {loss.candidate:.4f} against {_number(loss.champion)}" if loss else ""
            return f"model {event.model_version} trained on {event.dataset.rows:,} rows{told}"
        case events.ModelApproved():
            return f"model {event.model_version} approved by {event.decided_by}"
        case events.ModelRejected():
            failed = [gate for gate in event.gates if not gate.passed]
            return f"model {event.model_version} rejected: {failed[0].reason if failed else event.decided_by}"
        case events.ModelLoaded():
            return f"model {event.model_version} is serving after {event.seconds:.2f} s"
        case events.DriftDetected():
            worst = ", ".join(evidence.feature for evidence in event.evidence[:3])
            return f"drift detected in {worst} ({event.kind})"
    return None


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
