"""What a pipeline's model is asked with: from tensors or JSON objects to rows of fields.

Values are checked for their type only. Ranges and allowed values are ingest's to judge: a caller of a model
wants an answer for a surprising row, and the model knows missing and unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from everloop_features import microseconds
from everloop_schemas.pipeline import FieldSpec, Pipeline

from everloop_serving.domain.columns import Column, moment
from everloop_serving.domain.tensors import InvalidInput, Tensor

__all__ = ["ID", "Inputs", "Row"]

ID = "id"
"""The optional input that gives each row its id."""
_LONGEST_ID = 256


@dataclass(slots=True)  # freezing it would cost two microseconds a row
class Row:
    """One observation to answer. `fields` has every declared field; a missing one is None."""

    id: str
    event_time: datetime
    event_time_us: int
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of one pipeline version."""

    pipeline: str
    event_time: str
    most_rows: int
    columns: Mapping[str, Column]
    missing: Mapping[str, None] = field(repr=False)

    @classmethod
    def of(cls, pipeline: Pipeline, *, most_rows: int) -> "Inputs":
        """The inputs that the pipeline's observation declares."""
        observation = pipeline.observation
        specs = {
            **observation.fields,
            observation.event_time: FieldSpec(type="timestamp"),
        }
        columns = {name: Column.of(name, spec) for name, spec in specs.items()}
        return cls(
            pipeline.pipeline, observation.event_time, most_rows, columns, dict.fromkeys(observation.fields)
        )

    def metadata(self) -> list[dict[str, Any]]:
        """The inputs as the protocol describes a model."""
        return [
            {"name": column.name, "datatype": column.advertised, "shape": [-1]}
            for column in self.columns.values()
        ]

    def rows(self, tensors: Sequence[Tensor], request_id: str) -> list[Row]:
        """One row per element of the tensors' first dimension.

        A row's id is the request's, with `-<row>` behind it when there are several, unless an input `id`
        gives it.

        Raises:
            InvalidInput: for an unknown, missing, repeated or malformed input.
        """
        row = self._plain_row(tensors, request_id)
        return self._rows(tensors, request_id) if row is None else [row]

    def _plain_row(self, tensors: Sequence[Tensor], request_id: str) -> Row | None:
        """The row of the commonest request, with one value an input, in half the time.

        None for any other, and for one that is wrong: `_rows` then says in what.
        """
        columns = self.columns
        try:
            fields = {tensor.name: columns[tensor.name].single(tensor) for tensor in tensors}
        except (KeyError, ValueError):
            return None
        if not fields or len(fields) != len(tensors):
            return None
        self._check_complete(fields)
        return self._row(request_id, fields)

    def _rows(self, tensors: Sequence[Tensor], request_id: str) -> list[Row]:
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
                event_time_us = microseconds(moment(self._known(name).value(value)))
            elif name != ID:
                column = self._known(name)
                fields[name] = None if value is None else column.value(value)
        for name in required:
            if fields[name] is None and not self.columns[name].nullable:
                raise InvalidInput(f"input {name!r} is missing: it is part of the key")
        return fields, event_time_us

    def _row(self, row_id: str, fields: dict[str, Any]) -> Row:
        event_time = moment(fields.pop(self.event_time))
        return Row(row_id, event_time, microseconds(event_time), {**self.missing, **fields})

    def _known(self, name: str) -> Column:
        column = self.columns.get(name)
        if column is None:
            raise InvalidInput(
                f"input {name!r} is not known to {self.pipeline!r}; its inputs are {', '.join(self.columns)}"
            )
        return column

    def _column(self, tensor: Tensor) -> Sequence[Any]:
        if tensor.name == ID:
            return [_checked_id(value) for value in tensor.data]
        return self._known(tensor.name).checked(tensor)

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


def _row_ids(request_id: str, count: int) -> list[str]:
    return [request_id] if count == 1 else [f"{request_id}-{row}" for row in range(count)]


def _checked_id(value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= _LONGEST_ID:
        raise InvalidInput(f"input {ID!r}: an id is text of 1 to {_LONGEST_ID} characters")
    return value
