"""The use case of serving: answer rows and remember each answer as an event."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import msgspec
from everloop_kernel import telemetry
from everloop_kernel.stream_writer import Output
from everloop_schemas.events import Value
from opentelemetry.trace import Link, Span, SpanKind

from everloop_serving.application.explain import Explanations
from everloop_serving.application.models import Choice
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.application.slices import Slices
from everloop_serving.domain.explanations import Explanation
from everloop_serving.domain.inputs import Row
from everloop_serving.metrics import HotMetrics

__all__ = ["Answer", "Predictions", "trace_id"]

_TRACEPARENT_LENGTH = 55


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Outputs and vectors, row by row."""

    choice: Choice
    ids: list[str]
    outputs: list[float]
    vectors: list[list[Value]]
    explanations: list[Explanation] | None = None
    """Only where they were asked for."""


class Predictions:
    """Answers with whatever the models and their state are at that moment."""

    def __init__(self, writer: EventWriter, publish: Callable[[Output], None], metrics: HotMetrics) -> None:
        self._writer = writer
        self._publish = publish
        self._metrics = metrics
        self.slices = Slices()
        self.explanations = Explanations()

    def answer(
        self,
        choice: Choice,
        rows: Sequence[Row],
        traceparent: bytes | None,
        *,
        started: float | None = None,
    ) -> Answer:
        """Answer a few rows at once; `traceparent` is the caller's, `started` when the request came."""
        started = time.perf_counter() if started is None else started
        answer = Answer(choice, [], [], [])
        if telemetry.enabled():
            with _span(choice, traceparent):
                self._extend(answer, rows, started, telemetry.traceparent())
        else:
            self._extend(answer, rows, started, _passed_on(traceparent))
        self._count(answer, started)
        return answer

    async def explained(self, choice: Choice, rows: Sequence[Row], traceparent: bytes | None) -> Answer:
        """Answer a few rows, each with its explanation.

        Raises:
            InvalidInput, Busy: before anything is answered, when so many cannot be explained, or not now.
        """
        with self.explanations.place(len(rows)):
            answer = self.answer(choice, rows, traceparent)
            found = await self.explanations.of(choice.model, answer.vectors)
        return msgspec.structs.replace(answer, explanations=found)

    def answered(
        self,
        choice: Choice,
        row: Row,
        values: list[Value],
        output: float,
        *,
        started: float,
        traceparent: bytes | None,
    ) -> Answer:
        """Remember the answer to one row that was computed without a span."""
        age = choice.model.state.age_seconds()
        self._remember(choice, row, values, output, started, age, _passed_on(traceparent))
        answer = Answer(choice, [row.id], [output], [values])
        self._count(answer, started)
        return answer

    async def answer_many(self, choice: Choice, rows: Sequence[Row], traceparent: bytes | None) -> Answer:
        """Answer many rows in slices, so that a large request does not hold up the small ones."""
        started = time.perf_counter()
        answer = Answer(choice, [], [], [])
        with _span(choice, traceparent):
            current = telemetry.traceparent() or _passed_on(traceparent)
            await self.slices.each(rows, lambda part: self._extend(answer, part, started, current))
        self._count(answer, started)
        return answer

    def _extend(self, answer: Answer, rows: Sequence[Row], started: float, traceparent: str | None) -> None:
        choice = answer.choice
        model = choice.model
        age = model.state.age_seconds()
        vectors, outputs = model.answer(rows)
        answer.ids.extend([row.id for row in rows])
        answer.outputs.extend(outputs)
        answer.vectors.extend(vectors)
        for row, values, output in zip(rows, vectors, outputs, strict=True):
            self._remember(choice, row, values, output, started, age, traceparent)

    def _remember(  # noqa: PLR0917  (positions: names would cost a microsecond)
        self,
        choice: Choice,
        row: Row,
        values: list[Value],
        output: float,
        started: float,
        state_age: float | None,
        traceparent: str | None,
    ) -> None:
        event = self._writer.prediction(
            choice, row, values, output,
            latency_seconds=time.perf_counter() - started, state_age_seconds=state_age,
            traceparent=traceparent,
        )  # fmt: skip
        self._publish(event)

    def _count(self, answer: Answer, started: float) -> None:
        choice = answer.choice
        self._metrics.answered(
            choice.model.name, choice.model.model_version, choice.arm,
            len(answer.outputs), time.perf_counter() - started,
        )  # fmt: skip


def _span(choice: Choice, traceparent: bytes | None) -> AbstractContextManager[Span]:
    """The span of one request: in the caller's trace, with a link to the loading of its model."""
    model = choice.model
    attributes: dict[str, str | int] = {
        "everloop.pipeline": model.name,
        "everloop.model_version": model.model_version,
        "everloop.arm": choice.arm,
    }
    linked = [Link(model.load_span)] if model.load_span is not None else []
    parent = telemetry.extract([("traceparent", traceparent)])
    return telemetry.span(
        f"infer {model.name}", attributes, kind=SpanKind.SERVER, parent=parent, linked=linked
    )


def trace_id(traceparent: bytes | None) -> str | None:
    """The trace that the caller's context names, which the prediction's event and spans belong to."""
    passed_on = _passed_on(traceparent)
    return None if passed_on is None else passed_on.split("-")[1]


def _passed_on(traceparent: bytes | None) -> str | None:
    """The caller's context for the event, where this process records no spans itself."""
    if traceparent is None or len(traceparent) != _TRACEPARENT_LENGTH or not traceparent.isascii():
        return None
    return traceparent.decode()
