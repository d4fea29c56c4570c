"""A dataset's SHA-256 over bytes that depend on its content alone, not on any library's version.

Canonical form, in this order; every integer is little-endian, every length is unsigned 32 bits:

1. header: length, then canonical JSON of
   `{"columns": [[name, type], …], "format": 1, "pipeline", "pipeline_sha256", "pipeline_version", "rows"}`
2. id: per row its length and its UTF-8 bytes
3. partition, offset, event_time, label_event_time, label_known_at: per row a signed 64-bit integer
   (times in microseconds since 1970 UTC)
4. label value: per row a float64
5. each feature in the pipeline's order; a category per row as length and UTF-8 bytes, null as length
   0xFFFFFFFF;
   numbers and booleans (0/1) per row as float64, null as the quiet NaN 0x7FF8000000000000
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
from everloop_schemas import canonical
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Column, Dataset

__all__ = ["canonical_parts", "dataset_sha256"]

_NULL = b"\xff\xff\xff\xff"


def dataset_sha256(dataset: Dataset) -> str:
    """The digest in lower-case hexadecimal."""
    digest = hashlib.sha256()
    for part in canonical_parts(dataset):
        digest.update(part)
    return digest.hexdigest()


def canonical_parts(dataset: Dataset) -> Iterator[bytes]:
    """The canonical form, in pieces that are hashed one after another."""
    yield _text(_header(dataset))
    yield _texts(dataset.ids)
    for integers in (
        dataset.partition,
        dataset.offset,
        dataset.event_time,
        dataset.label_event_time,
        dataset.label_known_at,
    ):
        yield integers.astype("<i8").tobytes()
    yield _floats(dataset.target)
    for column in dataset.columns:
        yield _column(column)


def _header(dataset: Dataset) -> bytes:
    return canonical.dumps(
        {
            "format": 1,
            "pipeline": dataset.identity.pipeline,
            "pipeline_version": dataset.identity.version,
            "pipeline_sha256": dataset.identity.sha256,
            "columns": [[column.name, column.type] for column in dataset.columns],
            "rows": dataset.rows,
        }
    )


def _column(column: Column) -> bytes:
    return _texts(column.values) if isinstance(column.values, list) else _floats(column.values)


def _texts(values: Iterable[str | None]) -> bytes:
    return b"".join([_NULL if value is None else _text(value.encode()) for value in values])


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + data


def _floats(values: NDArray[np.float64]) -> bytes:
    """One bit pattern for every NaN, so that where a null came from does not matter."""
    return np.where(np.isnan(values), np.nan, values).astype("<f8").tobytes()
