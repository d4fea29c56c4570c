"""Single rows that arrive in one turn of the event loop are answered together.

A model's trees lie in megabytes of memory; reading and writing one request drives them out of the processor's
caches. Walked for sixteen requests in a row they take a fifth off the CPU time of all (docs/decisions/0016).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from everloop_kernel import telemetry

from everloop_serving.application.loaded_model import LoadedModel
from everloop_serving.application.models import Choice
from everloop_serving.application.predict import Answer, Predictions
from everloop_serving.application.slices import SLICE_ROWS
from everloop_serving.domain.inputs import Row

__all__ = ["Turn"]


class _Asked(NamedTuple):
    """A row that waits for the end of the turn."""

    choice: Choice
    row: Row
    traceparent: bytes | None
    started: float
    done: Callable[[Answer | Exception], None]


class Turn:
    """Collects rows while the event loop reads what has come, and answers them then."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions
        self._asked: list[_Asked] = []

    def ask(
        self, choice: Choice, row: Row, traceparent: bytes | None, done: Callable[[Answer | Exception], None]
    ) -> None:
        """Answer `row` soon: `done`, which must not raise, gets the answer or what went wrong."""
        if not self._asked:
            asyncio.get_running_loop().call_soon(self._end)
        self._asked.append(_Asked(choice, row, traceparent, time.perf_counter(), done))

    def _end(self) -> None:
        """Answer a slice; what is left waits for another turn, as new requests do."""
        asked, self._asked = self._asked[:SLICE_ROWS], self._asked[SLICE_ROWS:]
        if self._asked:
            asyncio.get_running_loop().call_soon(self._end)
        parts: dict[LoadedModel, list[_Asked]] = {}
        for each in asked:
            parts.setdefault(each.choice.model, []).append(each)
        for model, part in parts.items():
            self._answer(model, part)

    def _answer(self, model: LoadedModel, asked: Sequence[_Asked]) -> None:
        if telemetry.enabled():  # a span is of one request
            self._one_by_one(asked)
            return
        try:
            vectors, outputs = model.answer([each.row for each in asked])
        except Exception:  # noqa: BLE001  (one by one: a request that fails must not fail the others)
            self._one_by_one(asked)
            return
        for each, values, output in zip(asked, vectors, outputs, strict=True):
            each.done(
                self._predictions.answered(
                    each.choice, each.row, values, output, started=each.started, traceparent=each.traceparent
                )
            )

    def _one_by_one(self, asked: Sequence[_Asked]) -> None:
        for each in asked:
            outcome: Answer | Exception
            try:
                outcome = self._predictions.answer(
                    each.choice, [each.row], each.traceparent, started=each.started
                )
            except Exception as error:  # noqa: BLE001  (`done` tells the caller's from ours)
                outcome = error
            each.done(outcome)
