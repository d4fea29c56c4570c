"""A partition's raw log from a local file, and its evaluation from the beginning."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from everloop_features import Compiled, Record, Vector, decode, microseconds, replay
from everloop_schemas.events import Cut

from everloop_trainer.adapters.log_format import read
from everloop_trainer.domain.dataset import Vectors, from_values
from everloop_trainer.domain.job import LogFile
from everloop_trainer.domain.records import Records
from everloop_trainer.domain.retracted import RETRACTED

__all__ = ["replayed"]

Entry = tuple[int, Record]


def replayed(
    root: Path, files: Sequence[LogFile], cut: Cut, compiled: Compiled
) -> tuple[Records, Records, Vectors]:
    """Observations, labels and vectors below the cut, from the log alone."""
    logs = [(file.partition, list(_entries(root / file.file, cut.get(file.partition, 0)))) for file in files]
    observations, labels = (
        [(number, [entry for entry in log if entry[1].kind == kind]) for number, log in logs]
        for kind in ("observation", "label")
    )
    vectors = [(number, vector) for number, log in logs for vector in replay(compiled, log)]
    return _records(observations), _records(labels), _vectors(vectors, compiled)


def _entries(path: Path, below: int) -> Iterator[Entry]:
    return ((offset, decode(value)) for offset, value in read(path) if offset < below)


def _records(logs: Sequence[tuple[int, Sequence[Entry]]]) -> Records:
    entries = [(number, offset, record) for number, log in logs for offset, record in log]
    return Records(
        [record.id for _, _, record in entries],
        np.array([number for number, _, _ in entries], dtype=np.int64),
        np.array([offset for _, offset, _ in entries], dtype=np.int64),
        _times([record.event_time for _, _, record in entries]),
        _times([record.known_at for _, _, record in entries]),
        [RETRACTED if record.retraction else json.dumps(record.fields) for _, _, record in entries],
    )


def _vectors(vectors: Sequence[tuple[int, Vector]], compiled: Compiled) -> Vectors:
    return Vectors(
        [vector.id for _, vector in vectors],
        np.array([number for number, _ in vectors], dtype=np.int64),
        np.array([vector.offset for _, vector in vectors], dtype=np.int64),
        _times([vector.event_time for _, vector in vectors]),
        _times([vector.known_at for _, vector in vectors]),
        from_values(compiled.names, compiled.types, [vector.values for _, vector in vectors]),
    )


def _times(times: Sequence[datetime]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([microseconds(time) for time in times], dtype=np.int64)
