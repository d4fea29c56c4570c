"""What the feature bench feeds: its pipeline, rows and state, and the rows of the flights example."""

import random
from datetime import UTC, datetime, timedelta

import msgspec
import rig
from everloop_features import compile  # noqa: A004
from everloop_schemas.events import RecordAccepted
from everloop_schemas.partition import key_bytes, partition_of
from everloop_schemas.pipeline import load

PARTITIONS = 4
KEYS = 5_000
WARM_UP = 60_000
START = datetime(2013, 1, 1, tzinfo=UTC)
CARRIERS = ["UA", "AA", "DL", "B6", "EV", "MQ", "US", "WN", "VX", "FL", "AS", "9E", "F9", "HA", "YV", "OO"]
PIPELINE = """
pipeline: feature-bench
partition_by: [plane]
partitions: 4
observation:
  event_time: departs
  fields:
    plane: {type: category}
    origin: {type: category, values: [EWR, JFK, LGA]}
    carrier: {type: category}
    dest: {type: category}
    distance: {type: number, unit: mi, min: 0, max: 6000}
    seats: {type: number, min: 1, max: 900}
    temperature: {type: number}
    humidity: {type: number}
    wind: {type: number, min: 0}
    pressure: {type: number}
label:
  type: binary
  fields: {arrival_delay: {type: number, unit: min}}
  value: {late: arrival_delay > 15}
features:
  plane: plane
  origin: origin
  carrier: carrier
  dest: dest
  distance: distance
  seats: seats
  temperature: temperature
  humidity: humidity
  wind: wind
  pressure: pressure
  hour: hour(event_time)
  route: concat(origin, '-', dest)
  log_distance: log1p(distance)
  chill: temperature - 0.7 * wind
  plane_flights_6h: count(window='6h', by=[plane])
  plane_seats_6h: sum(seats, window='6h', by=[plane])
  plane_wind_1d: mean(wind, window='1d', by=[plane])
  plane_wind_min_7d: min(wind, window='7d', by=[plane])
  plane_wind_max_7d: max(wind, window='7d', by=[plane])
  plane_wind_last_7d: last(wind, window='7d', by=[plane])
"""
LOG = "ingest-record-accepted-v1.feature-bench"
VECTORS = "feature-vector-computed-v1.feature-bench"
STATE = "feature-state-changed-v1.feature-bench"
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_type", RecordAccepted.type_name().encode()),
    ("ce_source", b"everloop-ingest/feature-bench"),
    ("content-type", b"application/json"),
    ("ce_id", b"0-1234567"),
]


def moment(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def record(chance: random.Random, number: int) -> dict:
    """A flight every two seconds; 2% come up to an hour late."""
    at = 2 * number
    late = chance.randrange(3600) if chance.random() < 0.02 else 0
    fields = {
        "plane": f"N{chance.randrange(KEYS):05d}",
        "origin": chance.choice(("EWR", "JFK", "LGA")),
        "carrier": chance.choice(CARRIERS),
        "dest": f"D{chance.randrange(100):02d}",
        "distance": float(chance.randrange(80, 5000)),
        "seats": float(chance.randrange(20, 400)),
        "temperature": round(chance.uniform(10, 90), 2),
        "humidity": round(chance.uniform(10, 100), 1),
        "wind": round(chance.uniform(0, 40), 1),
        "pressure": round(chance.uniform(990, 1040), 1),
    }
    known = {"event_time": moment(at - late), "known_at": moment(at), "fields": fields}
    return {"kind": "observation", "id": f"f{number}", "source": "bench", **known}


def rows(first: int, last: int) -> rig.Rows:
    """Log records by partition."""
    chance, encode = random.Random(first), msgspec.json.Encoder().encode
    by_partition: dict[int, list[rig.Row]] = {number: [] for number in range(PARTITIONS)}
    for number in range(first, last):
        value = record(chance, number)
        key = key_bytes([value["fields"]["plane"]])
        by_partition[partition_of(key, PARTITIONS)].append((key, encode(value)))
    return by_partition


def observations(by_partition: rig.Rows) -> int:
    """Rows that are no labels."""
    return sum(
        value.startswith(b'{"kind":"observation"') for part in by_partition.values() for _, value in part
    )


def flights(chance: random.Random, first: int, last: int) -> rig.Rows:
    """Rows of the flights example: each second one is the label of the flight of 60 rows before."""
    encode = msgspec.json.Encoder().encode
    by_partition: dict[int, list[rig.Row]] = {number: [] for number in range(PARTITIONS)}
    for number in range(first, last):
        value = flight(chance, number)
        key = key_bytes([value["fields"]["origin"]])
        by_partition[partition_of(key, PARTITIONS)].append((key, encode(value)))
    return by_partition


def flight(chance: random.Random, number: int) -> dict:
    origin = ("EWR", "JFK", "LGA")[number // 2 % 3]
    known = {"event_time": moment(40 * number), "known_at": moment(40 * number), "source": "bench"}
    if number % 2 and number > 60:
        fields = {"origin": origin, "arrival_delay": chance.gauss(5, 30)}
        return {"kind": "label", "id": f"f{number - 61}", **known, "fields": fields}
    fields = {
        "origin": origin,
        "carrier": chance.choice(CARRIERS),
        "dest": f"D{chance.randrange(100):02d}",
        "distance": float(chance.randrange(80, 5000)),
        "plane_year": chance.choice([None, float(chance.randrange(1960, 2013))]),
        "seats": float(chance.randrange(20, 400)),
        "temperature": chance.uniform(10, 90),
        "humidity": chance.uniform(10, 100),
        "wind": chance.uniform(0, 40),
        "precipitation": chance.choice([0.0, 0.0, 0.1]),
        "visibility": 10.0,
        "pressure": chance.uniform(990, 1040),
    }
    return {"kind": "observation", "id": f"f{number}", **known, "fields": fields}


def state_rows(keys: int) -> list[rig.Row]:
    """The state topic of one partition after three records of each key."""
    overlay = compile(load(PIPELINE)).new_state(1).begin()
    chance = random.Random(2)
    for number in range(3 * keys):
        fields = record(chance, number)["fields"]
        fields["plane"] = f"N{number % keys:07d}"
        at = round(START.timestamp() * 1e6) + number * 20_000
        overlay.position = number + 1
        overlay.observe(f"f{number}", fields, at, at)
    return [(key, value) for key, value in overlay.changes() if value is not None]
