"""What one input takes: its datatypes, and each value checked for its type."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from everloop_schemas.pipeline import FieldSpec

from everloop_serving.domain.tensors import FLOATS, INTEGERS, InvalidInput, Tensor

__all__ = ["Column", "moment"]

_NUMERIC = frozenset({*INTEGERS, *FLOATS})
_ACCEPTED = {
    "number": _NUMERIC,
    "integer": _NUMERIC,
    "boolean": frozenset({"BOOL"}),
    "category": frozenset({"BYTES"}),
    "string": frozenset({"BYTES"}),
    "timestamp": frozenset({"BYTES"}),
}
_ONE_ROW = [1]
_ADVERTISED = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}


def moment(text: str) -> datetime:
    """An RFC 3339 time in UTC; ValueError for another text or one without a zone."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("the zone is missing")
    try:
        return time if time.tzinfo is UTC else time.astimezone(UTC)
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
    moment(_text(value))
    return str(value)


def _or_null(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A reader that takes null too; NaN in a tensor is a missing value."""
    return lambda value: None if value is None or value != value else read(value)  # noqa: PLR0124


_READERS: dict[str, Callable[[Any], Any]] = {
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "category": _text,
    "string": _text,
    "timestamp": _time,
}


@dataclass(frozen=True, slots=True)
class Column:
    """One declared input."""

    name: str
    kind: str
    nullable: bool
    accepted: frozenset[str]
    read: Callable[[Any], Any]
    """The checked value; ValueError for one of another type."""

    @classmethod
    def of(cls, name: str, spec: FieldSpec) -> "Column":
        """The column of a declared field."""
        read = _READERS[spec.type]
        reader = _or_null(read) if spec.nullable else read
        return cls(name, spec.type, spec.nullable, _ACCEPTED[spec.type], reader)

    @property
    def advertised(self) -> str:
        """The datatype that the model's metadata names."""
        return _ADVERTISED.get(self.kind, "BYTES")

    def checked(self, tensor: Tensor) -> list[Any]:
        """A tensor's values, or InvalidInput for a datatype or value that this input does not take."""
        if tensor.datatype not in self.accepted:
            raise InvalidInput(
                f"input {tensor.name!r} has the datatype {tensor.datatype!r}; "
                f"a {self.kind} takes {', '.join(sorted(self.accepted))}"
            )
        bounds = INTEGERS.get(tensor.datatype)
        if bounds is not None:
            _check_bounds(tensor, *bounds)
        return self.values(tensor.data)

    def single(self, tensor: Tensor) -> Any:
        """The value of a plain tensor of one row; ValueError for any other, and for a value that is wrong."""
        (value,) = tensor.data
        if tensor.shape != _ONE_ROW or tensor.datatype not in self.accepted:
            raise ValueError("needs a closer look")
        bounds = INTEGERS.get(tensor.datatype)
        if bounds is not None and not _fits(value, *bounds):
            raise ValueError("is out of bounds")
        return self.read(value)

    def values(self, data: Sequence[Any]) -> list[Any]:
        """Checked values, or InvalidInput."""
        read = self.read
        try:
            return [read(value) for value in data]
        except ValueError:
            return [self.value(value) for value in data]

    def value(self, value: Any) -> Any:
        """One checked value, or InvalidInput that says what is wrong with it."""
        try:
            return self.read(value)
        except ValueError as error:
            if value is None or value != value:  # noqa: PLR0124  (NaN)
                raise InvalidInput(f"input {self.name!r} must not be null") from None
            shown = str(value)[:100]
            raise InvalidInput(f"input {self.name!r}: {shown!r} {_reason(self.kind, error)}") from None


def _reason(kind: str, error: ValueError) -> str:
    return "is no RFC 3339 time with a zone" if kind == "timestamp" else str(error)


def _check_bounds(tensor: Tensor, lowest: int, highest: int) -> None:
    for value in tensor.data:
        if not _fits(value, lowest, highest):
            raise InvalidInput(f"input {tensor.name!r}: {str(value)[:100]!r} is no {tensor.datatype}")


def _fits(value: Any, lowest: int, highest: int) -> bool:
    return value is None or (type(value) is int and lowest <= value <= highest)
