"""The child process that looks through segments below ROOT for an id.

Standard input: msgpack `{"id": text, "files": [path, …]}`; standard output: JSON list of the rows with
that id, each with its `file`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq


def main(root: str) -> None:
    """Look through the files for an id, reading a file's other columns only where it is found."""
    wanted = msgspec.msgpack.decode(sys.stdin.buffer.read())
    rows = [row for file in wanted["files"] for row in _rows(Path(root), file, wanted["id"])]
    sys.stdout.write(json.dumps(rows))


def _rows(root: Path, file: str, wanted: str) -> Iterator[dict[str, Any]]:
    segment = pq.ParquetFile(root / file)
    if pc.index(segment.read(columns=["id"])["id"], wanted).as_py() < 0:
        return
    table = segment.read()
    for row in table.filter(pc.equal(table["id"], wanted)).to_pylist():
        times = {name: row[name].isoformat() for name in ("event_time", "known_at")}
        yield {**row, **times, "file": file}
