"""A Feast repository with as many features as ours, filled into Redis: FOLDER REDIS_PORT NAMES…

Entities, features and their values are what Everloop answers with; Feast only looks them up.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64

CONFIG = """
project: bench
registry: registry.db
provider: local
online_store: {{type: redis, connection_string: "127.0.0.1:{port}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""
ORIGINS = ["EWR", "JFK", "LGA"]
CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"]


def main(folder: Path, port: str, names: list[str]) -> None:
    (folder / "feature_store.yaml").write_text(CONFIG.format(port=port))
    keys = [f"{origin}-{carrier}" for origin in ORIGINS for carrier in CARRIERS]
    frame = pd.DataFrame({"key": keys, "event_timestamp": datetime.now(UTC), "created": datetime.now(UTC)})
    for number, name in enumerate(names):
        frame[name] = [number + row / 3 for row in range(len(keys))]
    frame.to_parquet(folder / "rows.parquet")
    source = FileSource(
        path=str(folder / "rows.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )
    key = Entity(name="key", join_keys=["key"])
    schema = [Field(name=name, dtype=Float64) for name in names]
    view = FeatureView(name="flights", entities=[key], ttl=timedelta(days=10), schema=schema, source=source)
    store = FeatureStore(str(folder))
    store.apply([key, view])
    store.write_to_online_store("flights", frame)


main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
