"""Segments on disk: immutable Parquet files, complete under their name or not there at all."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Column, FeatureType, Vectors
from everloop_trainer.domain.job import SegmentFile, UntrainableError
from everloop_trainer.domain.records import Records

__all__ = ["Feature", "StagedRow", "read_records", "read_vectors", "write_segment"]

Feature = tuple[str, FeatureType]
StagedRow = tuple[int, bool, str, int, int, Any]
"""offset, is it a label, id, event_time, known_at (microseconds), a vector's values or a record's JSON"""

_PREFIX = "feature_"
_TIME = pa.timestamp("us", tz="UTC")
_TYPES = {"number": pa.float64(), "boolean": pa.bool_(), "category": pa.string()}


def write_segment(
    path: Path, rows: Sequence[StagedRow], features: Sequence[Feature] | None
) -> tuple[str, int]:
    """Write rows (vectors where `features` names them, records otherwise); SHA-256 and bytes of the file.

    The file appears under its name when its bytes are on disk: a kill leaves a hidden temporary file at most.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(_table(rows, features), temporary, compression="zstd", store_schema=False)
    data = temporary.read_bytes()
    _persist(temporary)
    temporary.rename(path)
    _persist(path.parent)
    return hashlib.sha256(data).hexdigest(), len(data)


def read_vectors(
    root: Path, files: Sequence[SegmentFile], version: int, features: Sequence[Feature]
) -> Vectors:
    """One pipeline version's vectors in these segments. Raises UntrainableError for a changed file."""
    wanted = [file for file in files if file.kind == "vectors" and file.version == version]
    tables = [(file.partition, _read(root, file)) for file in wanted]
    columns = tuple(_column(tables, name, kind) for name, kind in features)
    return Vectors(
        _texts(tables, "id"),
        _partitions(tables),
        _integers(tables, "log_offset"),
        _integers(tables, "event_time"),
        _integers(tables, "known_at"),
        columns,
    )


def read_records(root: Path, files: Sequence[SegmentFile]) -> tuple[Records, Records]:
    """All observations and all labels of these segments. Raises UntrainableError as above."""
    tables = [(file.partition, _read(root, file)) for file in files if file.kind == "records"]
    chosen = [(number, table, table["label"].to_numpy(zero_copy_only=False)) for number, table in tables]
    observations = [(number, table.filter(pa.array(~label))) for number, table, label in chosen]
    labels = [(number, table.filter(pa.array(label))) for number, table, label in chosen]
    return _records(observations), _records(labels)


Tables = Sequence[tuple[int, Any]]


def _records(tables: Tables) -> Records:
    return Records(
        _texts(tables, "id"),
        _partitions(tables),
        _integers(tables, "log_offset"),
        _integers(tables, "event_time"),
        _integers(tables, "known_at"),
        _texts(tables, "fields"),
    )


def _table(rows: Sequence[StagedRow], features: Sequence[Feature] | None) -> Any:
    offsets, labels, ids, event_times, known_ats, data = zip(*rows, strict=True)
    columns = {
        "log_offset": pa.array(offsets, pa.int64()),
        "id": pa.array(ids, pa.string()),
        "event_time": pa.array(event_times, pa.int64()).cast(_TIME),
        "known_at": pa.array(known_ats, pa.int64()).cast(_TIME),
    }
    if features is None:
        return pa.table(
            {**columns, "label": pa.array(labels, pa.bool_()), "fields": pa.array(data, pa.string())}
        )
    values = zip(*data, strict=True)
    typed = {
        f"{_PREFIX}{name}": pa.array(_plain(column, kind), _TYPES[kind])
        for (name, kind), column in zip(features, values, strict=True)
    }
    return pa.table({**columns, **typed})


def _plain(values: Sequence[Any], kind: FeatureType) -> Sequence[Any]:
    """A whole number may be larger than float64 holds exactly: it becomes the nearest, as in serving."""
    return [None if v is None else float(v) for v in values] if kind == "number" else values


def _read(root: Path, file: SegmentFile) -> Any:
    path = root / file.file
    mend = "Restore the trainer's data directory from a copy that fits its database"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UntrainableError(f"segment {path} cannot be read: {error.strerror}", mend) from error
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise UntrainableError(f"segment {path} is not what was written: its SHA-256 differs", mend)
    return pq.ParquetFile(pa.BufferReader(data)).read()


def _texts(tables: Tables, name: str) -> list[str]:
    return [text for _, table in tables for text in table[name].to_pylist()]


def _integers(tables: Tables, name: str) -> NDArray[np.int64]:
    return _joined([table[name].cast(pa.int64()).to_numpy() for _, table in tables], np.int64)


def _partitions(tables: Tables) -> NDArray[np.int64]:
    return _joined([np.full(table.num_rows, number) for number, table in tables], np.int64)


def _joined(arrays: Sequence[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)


def _column(tables: Tables, name: str, kind: FeatureType) -> Column:
    column = f"{_PREFIX}{name}"
    if kind == "category":
        return Column(name, kind, [value for _, table in tables for value in table[column].to_pylist()])
    numbers = [table[column].cast(pa.float64()).fill_null(np.nan).to_numpy() for _, table in tables]
    return Column(name, kind, _joined(numbers, np.float64))


def _persist(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
