"""The use case of serving: answer rows and remember each answer as an event."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from everloop_kernel.stream_writer import Output
from everloop_schemas.events import Value

from everloop_serving.application.models import Choice
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.domain.inputs import Row
from everloop_serving.metrics import HotMetrics

__all__ = ["Answer", "Predictions"]

SLICE_ROWS = 64
"""Rows answered before other requests get their turn: about three milliseconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs and vectors, row by row."""

    choice: Choice
    ids: list[str]
    outputs: list[float]
    vectors: list[list[Value]]


class Predictions:
    """Answers with whatever the models and their state are at that moment."""

    def __init__(self, writer: EventWriter, publish: Callable[[Output], None], metrics: HotMetrics) -> None:
        self._writer = writer
        self._publish = publish
        self._metrics = metrics

    def answer(self, choice: Choice, rows: Sequence[Row], traceparent: str | None) -> Answer:
        """Answer a few rows at once; `started` is monotonic seconds."""
        started = time.perf_counter()
        answer = Answer(choice, [], [], [])
        self._extend(answer, rows, started, traceparent)
        self._count(answer, started)
        return answer

    async def answer_many(self, choice: Choice, rows: Sequence[Row], traceparent: str | None) -> Answer:
        """Answer many rows in slices, so that a large request does not hold up the small ones."""
        started = time.perf_counter()
        answer = Answer(choice, [], [], [])
        for first in range(0, len(rows), SLICE_ROWS):
            self._extend(answer, rows[first : first + SLICE_ROWS], started, traceparent)
            await asyncio.sleep(0)
        self._count(answer, started)
        return answer

    def _extend(self, answer: Answer, rows: Sequence[Row], started: float, traceparent: str | None) -> None:
        choice = answer.choice
        model = choice.model
        age = model.state.age_seconds()
        for row in rows:
            values, output = model.answer(row)
            answer.ids.append(row.id)
            answer.outputs.append(output)
            answer.vectors.append(values)
            event = self._writer.prediction(
                choice, row, values, output,
                latency_seconds=time.perf_counter() - started, state_age_seconds=age, traceparent=traceparent,
            )  # fmt: skip
            self._publish(event)

    def _count(self, answer: Answer, started: float) -> None:
        choice = answer.choice
        self._metrics.answered(
            choice.model.name, choice.model.model_version, choice.arm,
            len(answer.outputs), time.perf_counter() - started,
        )  # fmt: skip
