"""The search process: `python -m everloop_trainer.find_job ROOT PARENT_PID`.

Standard input: msgpack `{"id": text, "files": [path, …]}`; standard output: JSON list of the rows with that id, each with its `file`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from everloop_trainer.adapters.orphans import end_with_parent


def main(root: Path) -> None:
    """Look through the files for an id, reading a file's other columns only where it is found."""
    wanted = msgspec.msgpack.decode(sys.stdin.buffer.read())
    rows = [row for file in wanted["files"] for row in _rows(root, file, wanted["id"])]
    sys.stdout.write(json.dumps(rows))


def _rows(root: Path, file: str, wanted: str) -> Iterator[dict[str, Any]]:
    path = root / file
    ids = pq.read_table(path, columns=["id"])["id"]
    found = pc.index(ids, wanted).as_py()
    if found < 0:
        return
    for row in pq.read_table(path, filters=[("id", "=", wanted)]).to_pylist():
        times = {name: row[name].isoformat() for name in ("event_time", "known_at")}
        yield {**row, **times, "file": file}


if __name__ == "__main__":
    end_with_parent(int(sys.argv[2]))
    main(Path(sys.argv[1]))
