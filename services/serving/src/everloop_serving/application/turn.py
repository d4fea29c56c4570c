"""Single rows that arrive in one turn of the event loop are answered together.

A model's trees lie in megabytes of memory; reading and writing one request drives them out of the processor's
caches. Walked for sixteen requests in a row they take a fifth off the CPU time of all (docs/decisions/0016).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from everloop_kernel import telemetry
from everloop_schemas.events import Value

from everloop_serving.application.models import Choice
from everloop_serving.application.predict import SLICE_ROWS, Answer, Predictions
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
        found = None if telemetry.enabled() else _together(asked)  # a span is of one request
        if found is None:
            self._one_by_one(asked)
            return
        for each, (values, output) in zip(asked, found, strict=True):
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


def _together(asked: Sequence[_Asked]) -> list[tuple[list[Value], float]] | None:
    """All vectors, then all outputs; None where one fails: it must not fail the others."""
    try:
        vectors = [each.choice.model.vector(each.row.fields, each.row.event_time_us) for each in asked]
        return [
            (values, each.choice.model.output(values)) for each, values in zip(asked, vectors, strict=True)
        ]
    except Exception:  # noqa: BLE001  (one by one, the request that caused it meets it again)
        return None
