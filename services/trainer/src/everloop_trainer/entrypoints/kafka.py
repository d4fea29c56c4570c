"""The trainer's two subscriptions: data, and what may start a run."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
from everloop_kernel import telemetry
from everloop_kernel.recorder import Message, Subscription, Transaction
from everloop_schemas.cloudevents import decode, envelope
from everloop_schemas.events import (
    DataArrived,
    DeploymentChanged,
    DriftDetected,
    Event,
    ModelApproved,
    ModelRejected,
    PipelineDefined,
    QualityJudged,
    RecordAccepted,
    VectorComputed,
)
from everloop_schemas.pipeline import from_definition
from everloop_schemas.rejected import Rejected
from everloop_schemas.topics import TOPICS
from pydantic import ValidationError

from everloop_trainer.application.consider import consider, supersede
from everloop_trainer.application.ports import Decisions, Recording
from everloop_trainer.application.record import record_log, record_vectors
from everloop_trainer.entrypoints.data_events import LOG, VECTORS, DataEvents, Record, Vector

__all__ = ["DATA_GROUP", "DECISIONS_GROUP", "Work", "subscriptions"]

DATA_GROUP = "everloop-trainer-data"
DECISIONS_GROUP = "everloop-trainer-decisions"
LINGER_MS = 300
"""Rows wait for a run anyway; larger batches cost far less."""
_LONGEST_REASON = 500


class Work(Recording, Decisions, Protocol):
    """One transaction of the trainer's state."""

    async def define(self, event: PipelineDefined, event_id: str) -> None: ...  # noqa: D102 - named as the event
    async def arrive(self, event: DataArrived, event_id: str) -> None: ...  # noqa: D102
    async def drift(self, event: DriftDetected, event_id: str) -> None: ...  # noqa: D102
    async def quality(self, event: QualityJudged) -> None: ...  # noqa: D102
    async def deploy(self, event: DeploymentChanged) -> None: ...  # noqa: D102
    async def judge(self, event: ModelApproved | ModelRejected) -> None: ...  # noqa: D102


E = TypeVar("E", bound=Event)
T = TypeVar("T", Record, Vector)
Open = Callable[[Transaction], Work]
_DECISIONS: Mapping[str, type[Event]] = {
    event.topic: event
    for event in (
        PipelineDefined,
        DataArrived,
        DriftDetected,
        QualityJudged,
        DeploymentChanged,
        ModelApproved,
        ModelRejected,
    )
}
_DATA = (RecordAccepted, VectorComputed)


def subscriptions(open_work: Open, staged: Callable[[], None]) -> list[Subscription]:
    """Both; `staged` is called when there is something to write to segments."""
    pattern = "|".join(f"(?:{TOPICS[event.topic].pattern})" for event in _DATA)
    return [
        Subscription(
            DATA_GROUP,
            pattern=pattern,
            handler=_data_handler(open_work, staged),
            max_records=4000,
            linger_ms=LINGER_MS,
        ),
        Subscription(DECISIONS_GROUP, tuple(_DECISIONS), handler=_decision_handler(open_work)),
    ]


Handler = Callable[[Sequence[Message], Transaction], Awaitable[None]]


def _data_handler(open_work: Open, staged: Callable[[], None]) -> Handler:
    async def handle(messages: Sequence[Message], transaction: Transaction) -> None:
        base, _, pipeline = messages[0].topic.partition(".")
        if base == RecordAccepted.topic:
            await _log(pipeline, messages, transaction, open_work(transaction))
        else:
            await _vectors(pipeline, messages, transaction, open_work(transaction))
        staged()

    return handle


async def _log(pipeline: str, messages: Sequence[Message], transaction: Transaction, work: Work) -> None:
    entries = [
        (message.offset, record)
        for message in messages
        if (record := _kept(LOG, message, transaction)) is not None
    ]
    if await record_log(pipeline, messages[0].partition, entries, work, _to_json):
        await consider(pipeline, work, telemetry.traceparent())


async def _vectors(pipeline: str, messages: Sequence[Message], transaction: Transaction, work: Work) -> None:
    read = (_kept(VECTORS, message, transaction) for message in messages)
    await record_vectors(pipeline, [vector for vector in read if vector is not None], work, _to_json)


def _kept(events: DataEvents[T], message: Message, transaction: Transaction) -> T | None:
    """The data event, or None for what now lies with the dead letters."""
    event = events.read(message.value, message.headers)
    if not isinstance(event, Rejected) and "\0" in event.id:
        event = Rejected("nul-in-id", "the id holds the character NUL", "send ids without it")
    if isinstance(event, Rejected):
        transaction.reject(message, event.code, event.reason)
        return None
    return event


def _decision_handler(open_work: Open) -> Handler:
    async def handle(messages: Sequence[Message], transaction: Transaction) -> None:
        work = open_work(transaction)
        concerned: dict[str, None] = {}
        for message in messages:
            event = _read(_DECISIONS[message.topic], message, transaction)
            if event is not None:
                await _keep(event, message, work)
                concerned[_pipeline_of(event)] = None
        for pipeline in sorted(concerned):
            await consider(pipeline, work, telemetry.traceparent())

    return handle


async def _keep(event: Event, message: Message, work: Work) -> None:
    match event:
        case PipelineDefined():
            await work.define(event, _event_id(message))
            await supersede(event.pipeline, event.version, work)
        case DataArrived():
            await work.arrive(event, _event_id(message))
        case DriftDetected():
            await work.drift(event, _event_id(message))
        case QualityJudged():
            await work.quality(event)
        case DeploymentChanged():
            await work.deploy(event)
        case ModelApproved() | ModelRejected():
            await work.judge(event)
        case _:
            raise TypeError(f"{event.topic} is no decision that the trainer knows")


def _pipeline_of(event: Any) -> str:
    """Every decision event names its pipeline."""
    pipeline: str = event.pipeline
    return pipeline


def _event_id(message: Message) -> str:
    """The CloudEvents id; `_read` has seen that there is one."""
    found = envelope(message.headers, message.value)
    assert not isinstance(found, Rejected)
    assert found.id is not None
    return found.id


def _read(model: type[E], message: Message, transaction: Transaction) -> E | None:
    """The event, or None for what now lies with the dead letters."""
    event = decode(model, message.value, message.headers)
    if not isinstance(event, Rejected):
        event = _usable(event)
    if isinstance(event, Rejected):
        transaction.reject(message, event.code, event.reason)
        return None
    return event


def _usable(event: E) -> E | Rejected:
    """What the decoder cannot know: a definition must be one."""
    if isinstance(event, PipelineDefined):
        try:
            from_definition(event.definition)
        except ValidationError as error:
            return Rejected("definition", str(error)[:_LONGEST_REASON], "apply the pipeline's file again")
    return event


def _to_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
