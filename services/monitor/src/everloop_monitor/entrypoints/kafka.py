"""What the monitor reads: translate, call, nothing else."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from everloop_features import Compiled
from everloop_features import compile as compile_pipeline
from everloop_kernel.errors import PermanentError
from everloop_kernel.recorder import Message, Subscription, Transaction
from everloop_schemas import cloudevents
from everloop_schemas.events import (
    DeploymentChanged,
    Event,
    ModelTrained,
    PipelineDefined,
    PredictionMade,
    RecordAccepted,
    VectorComputed,
)
from everloop_schemas.pipeline import from_definition
from everloop_schemas.rejected import Rejected
from everloop_schemas.topics import TOPICS

from everloop_monitor.application.ports import Work
from everloop_monitor.application.record import (
    record_labels,
    record_predictions,
    record_retractions,
    record_vectors,
)
from everloop_monitor.domain.days import day_of
from everloop_monitor.domain.rows import PredictionRow

__all__ = ["DATA_GROUP", "DECISION_GROUP", "Handlers"]

DATA_GROUP: Final = "everloop-monitor-data"
DECISION_GROUP: Final = "everloop-monitor-decisions"
DATA: Final = (PredictionMade, RecordAccepted, VectorComputed)
DECISIONS: Final[tuple[type[Event], ...]] = (PipelineDefined, DeploymentChanged, ModelTrained)
LINGER_MS: Final = 300
"""Figures may be a moment old; larger batches cost far less."""
DEFINITION_SECONDS: Final = 8.0
"""A record can arrive a moment before its pipeline's definition, which has a consumer of its own."""


class _Prediction(msgspec.Struct):
    id: str
    pipeline_version: int
    model_version: int
    arm: str
    event_time: datetime
    predicted_at: datetime
    output: float


class _Record(msgspec.Struct):
    kind: str
    id: str
    event_time: datetime
    known_at: datetime
    fields: dict[str, Any]
    retraction: bool = False


class _Vector(msgspec.Struct):
    pipeline_version: int
    event_time: datetime
    known_at: datetime
    values: list[bool | int | float | str | None]


class Handlers:
    """The monitor's two subscriptions; `after` is told of each batch, so a finished day is judged soon."""

    def __init__(self, work_in: Callable[[Transaction], Work], after: Callable[[], None]) -> None:
        self._work_in = work_in
        self._after = after
        self._compiled: dict[str, Compiled] = {}

    def subscriptions(self) -> list[Subscription]:
        """Data by pattern, so that a new pipeline needs no restart; decisions by name."""
        pattern = "|".join(TOPICS[model.topic].pattern for model in DATA)
        return [
            Subscription(
                DATA_GROUP, pattern=pattern, handler=self.on_data, max_records=5000, linger_ms=LINGER_MS
            ),
            Subscription(DECISION_GROUP, [model.topic for model in DECISIONS], handler=self.on_decisions),
        ]

    async def on_decisions(self, messages: Sequence[Message], transaction: Transaction) -> None:
        """Follow definitions, models and deployments."""
        work = self._work_in(transaction)
        models = {model.topic: model for model in DECISIONS}
        for message in messages:
            event = cloudevents.decode(models[message.topic], message.value, message.headers)
            match event:
                case Rejected():
                    transaction.reject(message, event.code, event.reason)
                case PipelineDefined():
                    self._compiled.pop(event.pipeline, None)
                    await work.add_pipeline(event)
                case ModelTrained():
                    await work.add_model(event)
                case DeploymentChanged():
                    await work.set_champion(event)

    async def on_data(self, messages: Sequence[Message], transaction: Transaction) -> None:
        """Keep one partition's batch of predictions, records or vectors."""
        batches: dict[str, list[Message]] = defaultdict(list)
        for message in messages:
            batches[message.topic].append(message)
        work = self._work_in(transaction)
        for topic, batch in batches.items():
            base, _, pipeline = topic.partition(".")
            await self._keep[base](self, batch, pipeline, work, transaction)
        self._after()

    async def _predictions(
        self, batch: list[Message], pipeline: str, work: Work, transaction: Transaction
    ) -> None:
        made = _decoded(_Prediction, batch, transaction)
        rows = [
            PredictionRow(
                id=p.id,
                model_version=p.model_version,
                arm=p.arm,
                pipeline_version=p.pipeline_version,
                day=day_of(p.event_time),
                event_time=p.event_time,
                predicted_at=p.predicted_at,
                output=p.output,
                trace_id=_trace_id(message),
            )
            for message, p in made
        ]
        if rows:
            await record_predictions(work, pipeline, rows)

    async def _records(
        self, batch: list[Message], pipeline: str, work: Work, transaction: Transaction
    ) -> None:
        records = _decoded(_Record, batch, transaction)
        told = [record for _, record in records if record.kind == "label"]
        labels = [(r.id, r.event_time, r.known_at, r.fields) for r in told if not r.retraction]
        if labels:
            await record_labels(work, pipeline, labels, (await self._pipeline(pipeline, work)).label_value)
        gone = [(r.id, r.event_time, r.known_at) for r in told if r.retraction]
        await record_retractions(work, pipeline, gone)
        if records:
            known = max(record.known_at for _, record in records)
            await work.reach(pipeline, "log", batch[0].partition, known)

    async def _vectors(
        self, batch: list[Message], pipeline: str, work: Work, transaction: Transaction
    ) -> None:
        vectors = [vector for _, vector in _decoded(_Vector, batch, transaction)]
        await record_vectors(work, pipeline, [(v.pipeline_version, v.event_time, v.values) for v in vectors])
        if vectors:
            known = max(vector.known_at for vector in vectors)
            await work.reach(pipeline, "vectors", batch[0].partition, known)

    _keep = {  # noqa: RUF012 - a constant table of methods
        PredictionMade.topic: _predictions,
        RecordAccepted.topic: _records,
        VectorComputed.topic: _vectors,
    }

    async def _pipeline(self, name: str, work: Work) -> Compiled:
        """The newest version, compiled once; waits a moment for a definition that is on its way."""
        if name not in self._compiled:
            async with asyncio.timeout(DEFINITION_SECONDS):
                while (definition := await work.definition(name)) is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            compiled = compile_pipeline(from_definition(dict(definition)))
            if isinstance(compiled, list):
                raise PermanentError("pipeline-does-not-compile", compiled[0].message)
            self._compiled[name] = compiled
        return self._compiled[name]


def _decoded(shape: type[Any], batch: list[Message], transaction: Transaction) -> list[tuple[Message, Any]]:
    """Each message with what it holds; one that cannot be read becomes a dead letter."""
    found = []
    decoder = msgspec.json.Decoder(shape)
    for message in batch:
        try:
            found.append((message, decoder.decode(message.value or b"")))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            transaction.reject(message, "undecodable", str(error))
    return found


def _trace_id(message: Message) -> str | None:
    for name, value in message.headers:
        if name == "traceparent" and value is not None:
            return value.decode("ascii", "replace").split("-")[1][:32]
    return None
