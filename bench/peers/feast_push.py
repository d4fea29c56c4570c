"""The peer: Feast, `push` of ready rows to Redis in batches of 1,000. Nothing is computed or exactly-once.

    python feast_push.py REDIS_PORT FOLDER ROWS

Prints the rows it pushes a CPU second of its own process.
"""

import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource
from feast.data_source import PushMode
from feast.types import Float64, String
from feast.value_type import ValueType

NUMBERS = [f"number_{n}" for n in range(14)]
TEXTS = [f"text_{n}" for n in range(5)]
BATCH = 1000


def store(port: int, folder: Path) -> FeatureStore:
    (folder / "feature_store.yaml").write_text(
        f"project: bench\nregistry: {folder}/registry.db\nprovider: local\n"
        f"online_store: {{type: redis, connection_string: 'localhost:{port}'}}\n"
        "offline_store: {type: file}\nentity_key_serialization_version: 3\n"
    )
    path = folder / "rows.parquet"
    rows(0, 1).to_parquet(path)
    source = PushSource(name="rows", batch_source=FileSource(path=str(path), timestamp_field="event_time"))
    plane = Entity(name="plane", join_keys=["plane"], value_type=ValueType.STRING)
    schema = [Field(name=n, dtype=Float64) for n in NUMBERS] + [Field(name=n, dtype=String) for n in TEXTS]
    found = FeatureStore(repo_path=str(folder))
    found.apply(
        [
            plane,
            FeatureView(
                name="flights", entities=[plane], schema=schema, source=source, ttl=timedelta(days=30)
            ),
        ]
    )
    return found


def rows(first: int, count: int) -> pd.DataFrame:
    chance = random.Random(first)
    start = datetime(2013, 1, 1, tzinfo=UTC)
    return pd.DataFrame(
        {
            "plane": [f"N{chance.randrange(5000):05d}" for _ in range(count)],
            "event_time": pd.to_datetime([start + timedelta(seconds=2 * (first + n)) for n in range(count)]),
            **{name: [chance.random() for _ in range(count)] for name in NUMBERS},
            **{name: [f"t{chance.randrange(100)}" for _ in range(count)] for name in TEXTS},
        }
    )


def main(port: int, folder: Path, wanted: int) -> None:
    feast = store(port, folder)
    frames = [rows(first, BATCH) for first in range(0, wanted, BATCH)]
    feast.push("rows", frames[0], to=PushMode.ONLINE)
    began = time.process_time()
    for frame in frames[1:]:
        feast.push("rows", frame, to=PushMode.ONLINE)
    print((len(frames) - 1) * BATCH / (time.process_time() - began))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
