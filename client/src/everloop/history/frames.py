"""Between pandas and the evaluator: rows of entities and moments in, features out."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from everloop_features import Compiled, Value, microseconds
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import Pipeline

from everloop.errors import EverloopError, UsageError
from everloop.history.point_in_time import Question

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["AT", "Moment", "as_frame", "frame_of", "questions_of"]

AT = "at"
"""The column, or the argument, that says at which moment a row asks."""

Moment = datetime | str
"""An aware datetime, or RFC 3339 text with a zone."""

_DTYPES = {"number": "float64", "boolean": "boolean", "category": "object"}


def as_frame(rows: "Sequence[Mapping[str, Any]] | pd.DataFrame") -> "pd.DataFrame":
    """The rows as they were given, in a frame. Raises EverloopError where pandas is not installed."""
    try:
        import pandas as pd  # noqa: PLC0415  # an extra: nothing else in the client needs it
    except ImportError as error:
        raise EverloopError("pandas is not installed.", "Install the extra: everloop[frames].") from error
    return rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))


def questions_of(pipeline: Pipeline, frame: "pd.DataFrame", at: Moment | None) -> list[Question]:
    """One question a row. Raises UsageError that names row, column and what to write."""
    known = {*pipeline.observation.fields, pipeline.observation.event_time, AT}
    unknown = [str(name) for name in frame.columns if name not in known]
    if unknown:
        raise UsageError(
            f"{pipeline.pipeline} has no field {unknown[0]!r}.", f"Columns are: {', '.join(sorted(known))}."
        )
    missing = [name for name in pipeline.partition_by if name not in frame.columns]
    if missing:
        raise UsageError(f"The rows lack {missing[0]!r}.", "Every row has the partition key's fields.")
    if at is None and AT not in frame.columns:
        raise UsageError("Nothing says at which moment to look.", f"Give at=…, or each row a column {AT!r}.")
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [_question(pipeline, number, row, at) for number, row in enumerate(rows)]


def _question(pipeline: Pipeline, number: int, row: Mapping[Any, Any], at: Moment | None) -> Question:
    fields = {name: _plain(row.get(name)) for name in pipeline.observation.fields}
    moment = row.get(AT) if at is None else at
    event_time = row.get(pipeline.observation.event_time)
    key = key_bytes([fields[name] for name in pipeline.partition_by])
    at_us = _moment_us(moment, f"row {number}: {AT}")
    named = f"row {number}: {pipeline.observation.event_time}"
    happened_us = at_us if event_time is None else _moment_us(event_time, named)
    return Question(partition_of(key, pipeline.partitions), at_us, happened_us, fields)


def _plain(value: Any) -> Any:
    """A cell as JSON has it: numpy's scalars become Python's, times become text."""
    if isinstance(value, datetime):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def _moment_us(value: Any, where: str) -> int:
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        mend = "Write 2026-01-04T12:00:00Z, or give an aware datetime."
        raise UsageError(f"{where} is {value!r}, no time with a zone.", mend)
    return microseconds(moment)


def frame_of(
    compiled: Compiled, asked: "pd.DataFrame", at: Moment | None, vectors: Sequence[Sequence[Value]]
) -> "pd.DataFrame":
    """What was asked with the features beside it, in the same order and with the same index.

    A feature takes the place of a column of its name.
    """
    import pandas as pd  # noqa: PLC0415  # `as_frame` has seen that it is there

    kept = asked.drop(columns=[name for name in compiled.names if name in asked.columns])
    if at is not None:
        kept = kept.assign(**{AT: at})
    features = pd.DataFrame(
        [list(vector) for vector in vectors], columns=list(compiled.names), index=asked.index, dtype="object"
    )
    dtypes = {name: _DTYPES[kind] for name, kind in zip(compiled.names, compiled.types, strict=True)}
    return pd.concat([kept, features.astype(dtypes)], axis="columns")
