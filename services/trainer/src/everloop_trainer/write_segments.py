"""The child process that writes segments below ROOT.

Standard input: msgpack `[[file, features or null, rows], …]`, `features` as [name, type] pairs; standard
output: msgpack `[[sha256, bytes], …]`.

It is a process because reading and writing Parquet takes a hundred megabytes.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec

from everloop_trainer.adapters.segment_files import Feature, StagedRow, write_segment

_from_json = msgspec.json.Decoder().decode


class Segment(msgspec.Struct, array_like=True):
    """One file to write."""

    file: str
    features: list[Feature] | None
    rows: list[tuple[int, bool, str, int, int, str]]


def main(root: str) -> None:
    """Write every segment that standard input asks for."""
    segments = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=list[Segment])
    written = [write_segment(Path(root) / s.file, _rows(s), s.features) for s in segments]
    sys.stdout.buffer.write(msgspec.msgpack.encode(written))


def _rows(segment: Segment) -> list[StagedRow]:
    if segment.features is None:
        return list(segment.rows)
    return [(*row[:5], _values(row[5])) for row in segment.rows]


def _values(text: str) -> list[Any]:
    values: list[Any] = _from_json(text)
    return values
