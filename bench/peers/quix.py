"""The peer: Quix Streams, exactly-once, the same columns and six aggregates a key, state on RocksDB.

    python quix.py BOOTSTRAP IN OUT FOLDER

Its windows are made for it as cheaply as it allows: one stateful step, one read and one write of a key's
state a record, tumbling windows instead of sliding ones.
"""

import math
import sys
from datetime import datetime

from quixstreams import Application, State

GROUP = "bench-quix"
WINDOWS = (("6h", 21_600), ("1d", 86_400), ("7d", 604_800))


def features(record: dict, state: State) -> dict:
    fields = record["fields"]
    at = datetime.fromisoformat(record["event_time"])
    seconds = at.timestamp()
    held = state.get("windows") or {}
    wind, seats = fields["wind"], fields["seats"]
    short, day, week = (int(seconds // size) for _, size in WINDOWS)
    n, s = held["6h"][1:] if "6h" in held and held["6h"][0] == short else (0, 0.0)
    m, t = held["1d"][1:] if "1d" in held and held["1d"][0] == day else (0, 0.0)
    low, high, last = (
        held["7d"][1:] if "7d" in held and held["7d"][0] == week else (math.inf, -math.inf, None)
    )
    vector = {
        "id": record["id"],
        "event_time": record["event_time"],
        "known_at": record["known_at"],
        "values": [
            *fields.values(),
            at.hour,
            f"{fields['origin']}-{fields['dest']}",
            math.log1p(fields["distance"]),
            fields["temperature"] - 0.7 * wind,
            n,
            s,
            t / m if m else None,
            low if n else None,
            high if n else None,
            last,
        ],
    }
    state.set(
        "windows",
        {
            "6h": (short, n + 1, s + seats),
            "1d": (day, m + 1, t + wind),
            "7d": (week, min(low, wind), max(high, wind), wind),
        },
    )
    return vector


def main(bootstrap: str, source: str, target: str, folder: str) -> None:
    app = Application(
        broker_address=bootstrap, consumer_group=GROUP, auto_offset_reset="earliest",
        processing_guarantee="exactly-once", commit_interval=5.0, state_dir=folder, loglevel="WARNING",
        consumer_extra_config={"fetch.min.bytes": 100_000, "fetch.wait.max.ms": 50},
        producer_extra_config={"linger.ms": 20, "batch.size": 1 << 20},
    )  # fmt: skip
    frame = app.dataframe(app.topic(source, value_deserializer="json"))
    frame = frame.apply(features, stateful=True)
    frame.to_topic(app.topic(target, value_serializer="json"))
    app.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
