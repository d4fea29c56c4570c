"""Prediction events as bytes: written once, with positions instead of names."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

import msgspec
from everloop_kernel.stream_writer import Output
from everloop_schemas.events import ModelLoaded, PredictionMade, Value

from everloop_serving.application.models import Choice
from everloop_serving.domain.inputs import Row

__all__ = ["EventWriter"]

Header = tuple[str, bytes]


class _Prediction(msgspec.Struct, frozen=True, gc=False):
    """`everloop_schemas.events.PredictionMade`, field by field; a contract test compares them."""

    id: str
    pipeline_version: int
    model_version: int
    arm: str
    propensity: float
    event_time: datetime
    predicted_at: datetime
    values: Sequence[Value]
    output: float
    latency_seconds: float
    state_age_seconds: float | None


_encode = msgspec.json.Encoder().encode


class EventWriter:
    """Writes this instance's events.

    Ids are this process's random prefix and a counter: never the same twice.
    """

    def __init__(self, instance: str) -> None:
        self._prefix = os.urandom(8).hex()
        self._numbers = count(1)
        source = f"/everloop/serving/{instance}".encode()
        self._source: Header = ("ce_source", source)
        self._prediction_headers = self._fixed(PredictionMade.type_name())
        self._loaded_headers = self._fixed(ModelLoaded.type_name())

    def _fixed(self, type_name: str) -> list[Header]:
        return [
            ("ce_specversion", b"1.0"),
            self._source,
            ("ce_type", type_name.encode()),
            ("content-type", b"application/json"),
        ]

    def _headers(self, fixed: list[Header], event_id: str, traceparent: str | None) -> list[Header]:
        headers = [*fixed, ("ce_id", event_id.encode())]
        if traceparent is not None:
            headers.append(("traceparent", traceparent.encode()))
        return headers

    def prediction(
        self,
        choice: Choice,
        row: Row,
        values: Sequence[Value],
        output: float,
        *,
        latency_seconds: float,
        state_age_seconds: float | None,
        traceparent: str | None,
    ) -> Output:
        """The event of one answer, for the partition where the row's records lie."""
        model = choice.model
        value = _encode(
            _Prediction(
                row.id, model.pipeline_version, model.model_version, choice.arm, choice.propensity,
                row.event_time, datetime.now(UTC),
                values, output, latency_seconds, state_age_seconds,
            )
        )  # fmt: skip
        key, partition = model.key_and_partition(row)
        headers = self._headers(
            self._prediction_headers, f"{self._prefix}-{next(self._numbers)}", traceparent
        )
        return Output(model.topic, partition, key, value, headers)

    def model_loaded(self, event: ModelLoaded, traceparent: str | None) -> Output:
        """The event of a swap that happened or failed."""
        headers = self._headers(self._loaded_headers, event.id, traceparent)
        return Output(event.topic, 0, event.pipeline.encode(), event.model_dump_json().encode(), headers)
