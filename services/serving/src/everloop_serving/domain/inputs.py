"""What a pipeline's model is asked with: from tensors or JSON objects to rows of fields.

Values are checked for their type only. Ranges and allowed values are ingest's to judge: a caller of a model
wants an answer for a surprising row, and the model knows missing and unknown.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from everloop_features import microseconds
from everloop_schemas.pipeline import FieldSpec, Pipeline

from everloop_serving.domain.tensors import FLOATS, INTEGERS, InvalidInput, Tensor

__all__ = ["ID", "Inputs", "Row"]

ID = "id"
"""The optional input that gives each row its id."""
_LONGEST_ID = 256
_CONTROL = re.compile("[\x00-\x1f\x7f]")
"""In no id of the log either; and PostgreSQL, which joins predictions with labels, has no text with NUL."""
_NUMERIC = frozenset({*INTEGERS, *FLOATS})
_ACCEPTED = {
    "number": _NUMERIC,
    "integer": _NUMERIC,
    "boolean": frozenset({"BOOL"}),
    "category": frozenset({"BYTES"}),
    "string": frozenset({"BYTES"}),
    "timestamp": frozenset({"BYTES"}),
}
_ADVERTISED = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}


@dataclass(slots=True)  # freezing it would cost two microseconds a row
class Row:
    """One observation to answer. `fields` has every declared field; a missing one is None."""

    id: str
    event_time: datetime
    event_time_us: int
    fields: dict[str, Any]


def _moment(text: str) -> datetime:
    """An RFC 3339 time in UTC; ValueError for another text or one without a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the zone is missing")
    try:
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("the time is out of range") from error


def _number(value: Any) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and -(2**64) < value < 2**64:
        return float(value)
    raise ValueError("is no finite number")


def _integer(value: Any) -> int:
    if type(value) is int or (type(value) is float and value.is_integer()):
        return int(value)
    raise ValueError("is no whole number")


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise ValueError("is not true or false")


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    raise ValueError("is no text")


def _time(value: Any) -> str:
    _moment(_text(value))
    return str(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _text,
    "string": _text,
    "timestamp": _time,
}


@dataclass(frozen=True, slots=True)
class _Column:
    name: str
    kind: str
    nullable: bool
    accepted: frozenset[str]
    read: Callable[[Any], Any]

    def values(self, data: Sequence[Any]) -> list[Any]:
        """Checked values; NaN in a tensor is a missing value."""
        read = self.read
        try:
            if self.nullable:
                return [None if value is None else read(value) for value in data]
            return [read(value) for value in data]
        except ValueError:
            return [self.value(value) for value in data]

    def value(self, value: Any) -> Any:
        """One checked value, or InvalidInput that says what is wrong with it."""
        if value is None or value != value:  # noqa: PLR0124  (NaN)
            if self.nullable:
                return None
            raise InvalidInput(f"input {self.name!r} must not be null")
        try:
            return self.read(value)
        except ValueError as error:
            shown = str(value)[:100]
            raise InvalidInput(f"input {self.name!r}: {shown!r} {_reason(self.kind, error)}") from None


def _reason(kind: str, error: ValueError) -> str:
    return "is no RFC 3339 time with a zone" if kind == "timestamp" else str(error)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one pipeline version."""

    pipeline: str
    event_time: str
    most_rows: int
    columns: Mapping[str, _Column]
    missing: Mapping[str, None] = field(repr=False)

    @classmethod
    def of(cls, pipeline: Pipeline, *, most_rows: int) -> "Inputs":
        """The inputs that the pipeline's observation declares."""
        observation = pipeline.observation
        specs = {
            **observation.fields,
            observation.event_time: FieldSpec(type="timestamp"),
        }
        columns = {
            name: _Column(name, spec.type, spec.nullable, _ACCEPTED[spec.type], _READERS[spec.type])
            for name, spec in specs.items()
        }
        return cls(
            pipeline.pipeline, observation.event_time, most_rows, columns, dict.fromkeys(observation.fields)
        )

    def metadata(self) -> list[dict[str, Any]]:
        """The inputs as the protocol describes a model."""
        return [
            {"name": column.name, "datatype": _ADVERTISED.get(column.kind, "BYTES"), "shape": [-1]}
            for column in self.columns.values()
        ]

    def rows(self, tensors: Sequence[Tensor], request_id: str) -> list[Row]:
        """One row per element of the tensors' first dimension.

        A row's id is the request's, with `-<row>` behind it when there are several, unless an input `id`
        gives it.

        Raises:
            InvalidInput: for an unknown, missing, repeated or malformed input.
        """
        columns: dict[str, Sequence[Any]] = {}
        count = len(tensors[0].data) if tensors else 0
        for tensor in tensors:
            if tensor.name in columns:
                raise InvalidInput(f"input {tensor.name!r} is given twice")
            shape = tensor.shape
            if len(shape) != 1 or shape[0] != count or len(tensor.data) != count:
                _check_shape(tensor, count)
            columns[tensor.name] = self._column(tensor)
        if count > self.most_rows:
            raise InvalidInput(f"{count} rows in one request; at most {self.most_rows} are answered")
        if not count:
            raise InvalidInput("there are no inputs")
        ids = columns.pop(ID, None) or _row_ids(request_id, count)
        self._check_complete(columns)
        if count == 1:
            return [self._row(ids[0], {name: data[0] for name, data in columns.items()})]
        rows = zip(ids, *columns.values(), strict=True)
        return [self._row(row_id, dict(zip(columns, row, strict=True))) for row_id, *row in rows]

    def row(self, record: Mapping[str, Any], generated_id: str) -> Row:
        """One row from a JSON object as a producer would send it; `id` may be left out.

        Raises:
            InvalidInput: for an unknown, missing or malformed field.
        """
        fields: dict[str, Any] = {}
        row_id = generated_id
        for name, value in record.items():
            if name == ID:
                row_id = _checked_id(value)
            else:
                fields[name] = self._known(name).value(value)
        self._check_complete(fields)
        return self._row(row_id, fields)

    def partial(
        self, record: Mapping[str, Any], required: Sequence[str], now_us: int
    ) -> tuple[dict[str, Any], int]:
        """Fields and event time (µs) of an object of which only `required` must be there; `id` is ignored.

        Raises:
            InvalidInput: for an unknown, missing or malformed field.
        """
        fields: dict[str, Any] = dict(self.missing)
        event_time_us = now_us
        for name, value in record.items():
            if name == self.event_time:
                event_time_us = microseconds(_moment(self._known(name).value(value)))
            elif name != ID:
                column = self._known(name)
                fields[name] = None if value is None else column.value(value)
        for name in required:
            if fields[name] is None and not self.columns[name].nullable:
                raise InvalidInput(f"input {name!r} is missing: it is part of the key")
        return fields, event_time_us

    def _row(self, row_id: str, fields: dict[str, Any]) -> Row:
        moment = _moment(fields.pop(self.event_time))
        return Row(row_id, moment, microseconds(moment), {**self.missing, **fields})

    def _known(self, name: str) -> _Column:
        column = self.columns.get(name)
        if column is None:
            raise InvalidInput(
                f"input {name!r} is not known to {self.pipeline!r}; its inputs are {', '.join(self.columns)}"
            )
        return column

    def _column(self, tensor: Tensor) -> Sequence[Any]:
        if tensor.name == ID:
            return [_checked_id(value) for value in tensor.data]
        column = self._known(tensor.name)
        if tensor.datatype not in column.accepted:
            raise InvalidInput(
                f"input {tensor.name!r} has the datatype {tensor.datatype!r}; "
                f"a {column.kind} takes {', '.join(sorted(column.accepted))}"
            )
        bounds = INTEGERS.get(tensor.datatype)
        if bounds is not None:
            _check_bounds(tensor, *bounds)
        return column.values(tensor.data)

    def _check_complete(self, given: Mapping[str, Any]) -> None:
        if len(given) == len(self.columns):
            return
        lacking = [
            repr(name) for name, column in self.columns.items() if name not in given and not column.nullable
        ]
        if lacking:
            raise InvalidInput(f"input {', '.join(lacking)} is missing")


def _check_shape(tensor: Tensor, count: int) -> None:
    """Allow [rows, 1] too; raise InvalidInput for any other shape than [rows]."""
    shape, values = list(tensor.shape), len(tensor.data)
    if not shape or shape[0] != values or shape[1:] not in ([], [1]):
        raise InvalidInput(
            f"input {tensor.name!r} has {values} values for the shape {shape}; it must be [rows]"
        )
    if values != count:
        raise InvalidInput(f"input {tensor.name!r} has {values} rows, the first input {count}")


def _check_bounds(tensor: Tensor, lowest: int, highest: int) -> None:
    for value in tensor.data:
        if value is not None and not (type(value) is int and lowest <= value <= highest):
            raise InvalidInput(f"input {tensor.name!r}: {str(value)[:100]!r} is no {tensor.datatype}")


def _row_ids(request_id: str, count: int) -> list[str]:
    _checked_id(request_id)
    return [request_id] if count == 1 else [f"{request_id}-{row}" for row in range(count)]


def _checked_id(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= _LONGEST_ID:
        raise InvalidInput(f"input {ID!r}: an id is text of 1 to {_LONGEST_ID} characters")
    if not value.isprintable() and _CONTROL.search(value):  # the first is cheap, and too strict
        raise InvalidInput(f"input {ID!r}: an id has no control characters")
    return value
