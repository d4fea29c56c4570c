"""Rows of a CSV, Parquet or NDJSON file, as mappings, a few at a time."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from everloop_schemas.pipeline import FieldSpec

from everloop.errors import EverloopError, UsageError

__all__ = ["Row", "Table", "cell"]

_ROWS_AT_A_TIME = 10_000
_TRUTH = {"true": True, "false": False, "1": True, "0": False, "t": True, "f": False}

Row = Mapping[str, Any]


class Table:
    """A file with named columns. Raises EverloopError where it cannot be read, UsageError for its kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kind = path.suffix.lower().removeprefix(".")
        if self._kind not in ("csv", "parquet", "ndjson", "jsonl"):
            raise UsageError(f"{path} is no .csv, .parquet, .ndjson or .jsonl file.")
        if not path.is_file():
            raise EverloopError(f"{path} is no file.", "Name a file that exists.")

    @property
    def identity(self) -> str:
        """What tells this file from another, and from itself once it has changed."""
        about = self.path.stat()
        return f"{self.path.resolve()}:{about.st_size}:{about.st_mtime_ns}"

    def columns(self) -> Sequence[str]:
        """The names in the file's head; of NDJSON, those of its first object."""
        if self._kind == "parquet":
            return list(_parquet(self.path).schema_arrow.names)
        return list(next(iter(self.rows()), {}))

    def rows(self) -> Iterator[Row]:
        """Every row in the order of the file."""
        reader = {"csv": self._csv, "parquet": self._parquet}.get(self._kind, self._json)
        try:
            yield from reader()
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EverloopError(f"{self.path} cannot be read: {error}", "Write it as UTF-8.") from error

    def _csv(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, strict=True)

    def _parquet(self) -> Iterator[Row]:
        for batch in _parquet(self.path).iter_batches(_ROWS_AT_A_TIME):
            yield from batch.to_pylist()

    def _json(self) -> Iterator[Row]:
        with self.path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _object(line, f"{self.path}:{number}")


def cell(value: Any, spec: FieldSpec) -> Any:
    """A cell as JSON of the declared type, if it can be read so; else as it is, for the contract to refuse.

    An empty text is null, except in a field of type string. Files hold numbers as text, and floats for whole
    numbers that may be null.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    found = _from_text(value, spec) if isinstance(value, str) else value
    return _from_float(found, spec) if isinstance(found, float) else found


def _from_float(value: float, spec: FieldSpec) -> Any:
    """NaN is how tables write null; what JSON has no number for is refused as text."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return str(value)
    return int(value) if spec.type == "integer" and value.is_integer() else value


def _from_text(text: str, spec: FieldSpec) -> Any:
    if text == "" and spec.type != "string":
        return None
    try:
        if spec.type == "number":
            return float(text)
        if spec.type == "integer":
            return int(text)
    except ValueError:
        return text
    return _TRUTH.get(text.lower(), text) if spec.type == "boolean" else text


def _object(line: str, where: str) -> Row:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise EverloopError(f"{where} is no JSON: {error}", "Write one JSON object a line.") from error
    if not isinstance(found, dict):
        raise EverloopError(f"{where} is no JSON object.", "Write one JSON object a line.")
    return found


def _parquet(path: Path) -> Any:
    try:
        from pyarrow import ArrowInvalid  # noqa: PLC0415  # an extra: only this needs it
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415
    except ImportError as error:
        raise EverloopError("pyarrow is not installed.", "Install the extra: everloop[frames].") from error
    try:
        return ParquetFile(path)
    except ArrowInvalid as error:
        raise EverloopError(f"{path} is no Parquet file: {error}", "Write it again.") from error
