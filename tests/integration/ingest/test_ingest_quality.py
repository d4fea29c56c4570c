"""Data gates on a real Kafka: counted exactly through kills, told once, opened by a person."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
FILE = """
pipeline: NAME
partition_by: [origin]
observation:
  event_time: scheduled_departure
  replay_sources: [history]
  notify_every: 50
  fields:
    origin: {type: category, values: [EWR, JFK, LGA]}
    carrier: {type: category}
    distance: {type: number}
    wind: {type: number, nullable: true}
label:
  type: binary
  fields: {arrival_delay: {type: integer}}
  value: {late: arrival_delay > 15}
quality:
  learned: false
  expect: [{expect: not_null, field: wind, mostly: 0.9}]
"""
HISTORY = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"history"),
    ("ce_type", b"io.everloop.observation"),
]


def hour(records: Any, number: int, rows: int, wind: Callable[[int], float | None]) -> list[dict[str, Any]]:
    """The rows of one hour, evenly."""
    step, begin = timedelta(hours=1) / rows, BEGIN + timedelta(hours=number)
    times = [(begin + i * step).isoformat().replace("+00:00", "Z") for i in range(rows)]
    return [
        records.observation(number * 1000 + i, wind=wind(i), known_at=at, scheduled_departure=at)
        for i, at in enumerate(times)
    ]


async def judged(ingest: Any, name: str) -> list[dict[str, Any]]:
    return [each for each in await ingest.read("ingest-quality-judged-v1") if each["pipeline"] == name]


async def test_a_window_is_counted_exactly_through_kills(ingest, records, unique, until) -> None:
    """A worker that is killed in the middle of a window must neither forget rows nor count them twice."""
    name = unique("flights")
    await ingest.define(name, FILE)
    rows = hour(records, 0, 400, lambda i: None if i % 4 == 0 else 5.0)
    for first in range(0, 400, 100):
        await ingest.produce_records(name, [*rows[first : first + 100], rows[first]], HISTORY)
        ingest.kill()
        ingest.start(wait=False)
    ingest.wait_ready()
    for number in (1, 2, 3):
        await ingest.produce_records(name, hour(records, number, 150, lambda _: 5.0), HISTORY)
    assert await until(lambda: _told(ingest, name, "passed"), seconds=40)
    *broken, last = await judged(ingest, name)
    assert {event["verdict"] for event in broken} == {"broken"}
    assert [event["revision"] for event in (*broken, last)] == list(range(1, len(broken) + 2))
    assert (last["verdict"], last["blocked"]) == ("passed", False)
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        assert await until(lambda: _counted(client, name, 400))  # a partition may have come later than others
        window = (await client.get(f"/v1/pipelines/{name}/quality")).json()["windows"][0]
    (gate,) = window["broken"]
    assert (gate["gate"], gate["rows"], gate["figure"]) == ("not_null(wind)", 400, 0.25)
    assert (window["observations"], window["duplicates"], window["state"]) == (400, 4, "broken")
    arrivals = [e for e in await ingest.read("ingest-data-arrived-v1") if e["pipeline"] == name]
    assert len({each["id"] for each in arrivals}) == len(arrivals)
    assert any(each["blocked"] for each in arrivals)


async def test_a_person_takes_the_data_as_it_is(ingest, records, unique, until) -> None:
    """The gauge is gone for good: one call, and training goes on."""
    name = unique("flights")
    await ingest.define(name, FILE)
    path = f"/v1/pipelines/{name}/quality/accept"
    async with httpx.AsyncClient(base_url=ingest.url) as client:
        early = await client.post(path, json={"reason": "known"})
        assert (early.status_code, early.json()["title"]) == (409, "Nothing to accept")
        for number in range(3):
            await ingest.produce_records(name, hour(records, number, 60, lambda _: None), HISTORY)
        assert await until(lambda: _told(ingest, name, "broken"))
        assert await until(lambda: _blocked(client, name))
        assert (await client.post(path, json={})).status_code == 422
        answer = await client.post(path, json={"reason": "the gauge is gone"})
        assert (answer.status_code, answer.json()["accepted"]) == (202, ["not_null(wind)"])
        assert await until(lambda: _told(ingest, name, "accepted"))
    last = max(await judged(ingest, name), key=lambda event: event["revision"])
    assert (last["verdict"], last["blocked"], last["decision_reason"]) == (
        "accepted",
        False,
        "the gauge is gone",
    )


async def _told(ingest: Any, name: str, verdict: str) -> bool:
    return verdict in {event["verdict"] for event in await judged(ingest, name)}


async def _counted(client: httpx.AsyncClient, name: str, rows: int) -> bool:
    windows = (await client.get(f"/v1/pipelines/{name}/quality")).json()["windows"]
    return bool(windows) and windows[0]["observations"] >= rows


async def _blocked(client: httpx.AsyncClient, name: str) -> bool:
    return bool((await client.get(f"/v1/pipelines/{name}/quality")).json()["blocked"])
