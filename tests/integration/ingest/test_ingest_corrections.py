"""Conflicts, revised labels, retractions and what a contract quarantines or lets in, on a real Kafka."""

import asyncio

import httpx
import pytest
from everloop.history.retractions import Retractions, find
from everloop_schemas.pipeline import load

pytestmark = pytest.mark.integration

PIPELINE = """
pipeline: NAME
partition_by: [origin]
observation:
  event_time: scheduled_departure
  replay_sources: [history]
  allowed_lateness: 30d
  rules:
    - {name: plausible, expr: distance >= wind, action: quarantine, description: check the units}
  fields:
    origin: {type: category, values: [EWR, JFK, LGA]}
    carrier: {type: category, pattern: "[A-Z0-9]{2}", actions: {pattern: quarantine}}
    distance: {type: number, unit: mi, min: 0, max: 6000, actions: {max: warn}}
    wind: {type: number, nullable: true}
label:
  type: binary
  fields: {arrival_delay: {type: integer, unit: min}}
  value: {late: arrival_delay > 15}
"""


def typed(kind: str) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"history"),
        ("ce_type", f"io.everloop.{kind}".encode()),
    ]


async def test_corrections_hold_across_a_kill(ingest, records, unique, until) -> None:
    """What the log says after kill -9 is what decides: no conflict slips in, no revision is lost."""
    name = unique("flights")
    await ingest.define(name, PIPELINE)
    at = {"scheduled_departure": "2026-01-01T05:15:00Z", "known_at": "2026-01-01T05:15:00Z"}
    first = [records.observation(n, **at) for n in range(20)]
    told = [records.label(n, known_at="2026-01-01T09:00:00Z") for n in range(20)]
    await ingest.produce_records(name, first, typed("observation"))
    await ingest.produce_records(name, told, typed("label"))
    assert await until(lambda: _has(ingest, name, 40))
    ingest.kill()
    changed = [{**record, "wind": 7} for record in first[:5]]
    revised = [{**record, "arrival_delay": 1, "known_at": "2026-01-02T00:00:00Z"} for record in told[:5]]
    earlier = {"event_time": "2026-01-01T07:00:00Z", "known_at": "2026-01-01T08:00:00Z"}
    stale = [{**record, **earlier} for record in told[5:7]]
    withdrawn = [{"id": f"o{n}", "origin": first[n]["origin"]} for n in range(10, 13)]
    await ingest.produce_records(name, [*changed, *first], typed("observation"))
    await ingest.produce_records(name, [*revised, *stale, *told], typed("label"))
    await ingest.produce_records(name, [*withdrawn, *withdrawn], typed("retraction"))
    ingest.start()
    assert await until(lambda: _has(ingest, name, 48))
    assert await until(lambda: _quarantined(ingest, name, 7))
    log = await ingest.logged(name)
    assert len(log) == 48
    assert sorted(entry["id"] for entry in log if entry.get("retraction")) == ["o10", "o11", "o12"]
    late = {entry["id"]: [] for entry in log}
    for entry in log:
        late[entry["id"]].append(entry["fields"].get("arrival_delay"))
    assert late["o0"] == [None, 22, 1]
    assert late["o5"] == [None, 22]
    assert {entry["reason"] for entry in await ingest.quarantined(name)} == {"conflict"}


async def test_a_retracted_observation_comes_back_corrected(ingest, records, unique, until) -> None:
    name = unique("flights")
    await ingest.define(name, PIPELINE)
    at = {"scheduled_departure": "2026-01-01T05:15:00Z", "known_at": "2026-01-01T05:15:00Z"}
    wrong, right = records.observation(1, **at), records.observation(1, **at, wind=9)
    await ingest.produce_records(name, [wrong], typed("observation"))
    await ingest.produce_records(name, [{"id": "o1", "origin": wrong["origin"]}], typed("retraction"))
    await ingest.produce_records(name, [wrong, right], typed("observation"))
    assert await until(lambda: _has(ingest, name, 3))
    log = await ingest.logged(name)
    assert [entry.get("retraction", False) for entry in log] == [False, True, False]
    assert [entry["fields"].get("wind") for entry in log] == [None, None, 9.0]


async def test_plain_json_may_retract(ingest, records, unique, until) -> None:
    """A console producer has no headers."""
    name = unique("flights")
    await ingest.define(name, PIPELINE)
    await ingest.produce_records(name, [{"id": "o1", "origin": "JFK", "retraction": True}])
    assert await until(lambda: _has(ingest, name, 1))
    (entry,) = await ingest.logged(name)
    assert (entry["retraction"], entry["kind"], entry["fields"]) == (True, "label", {"origin": "JFK"})


async def test_a_run_of_the_command_retracts_once(ingest, records, unique, until) -> None:
    """By ids, over HTTP, as often as one likes; the reason stands in the log, and a correction may follow."""
    name = unique("flights")
    await ingest.define(name, PIPELINE)
    pipeline = load(PIPELINE.replace("NAME", name))
    at = {"scheduled_departure": "2026-01-01T05:15:00Z", "known_at": "2026-01-01T05:15:00Z"}
    first = [records.observation(number, **at) for number in range(5)]
    await ingest.produce_records(name, first, typed("observation"))
    assert await until(lambda: _has(ingest, name, 5))
    ids = ["o1", "o3", "o9"]

    def post(source: str, rows: bytes) -> dict:
        url = f"{ingest.url}/v1/pipelines/{name}/retractions"
        headers = {"content-type": "application/x-ndjson", "ce-source": source}
        return httpx.post(url, content=rows, headers=headers).json()

    standing = await find(ingest.kafka, pipeline, ids, None)
    assert ([one.id for one in standing.open], standing.missing) == (["o1", "o3"], ["o9"])
    for _ in range(2):
        done = Retractions()
        await asyncio.to_thread(done.send, standing.open, "wrong clock", post)
        assert (done.sent, done.refused) == (2, [])
    assert await until(lambda: _has(ingest, name, 7))
    corrected = records.observation(1, **at, wind=9)
    await ingest.produce_records(name, [corrected], typed("observation"))
    assert await until(lambda: _has(ingest, name, 8))
    log = await ingest.logged(name)
    assert [entry.get("reason") for entry in log if entry.get("retraction")] == ["wrong clock"] * 2
    again = await find(ingest.kafka, pipeline, ids, "history")
    assert ([one.id for one in again.open], again.withdrawn) == (["o1"], ["o3"])


async def test_each_rule_has_its_consequence(ingest, records, unique, until) -> None:
    """Refused and quarantined both wait in the quarantine; what only warns is in the log, counted."""
    name = unique("flights")
    await ingest.define(name, PIPELINE)
    at = {"scheduled_departure": "2026-01-01T05:15:00Z", "known_at": "2026-01-01T05:15:00Z"}
    sent = [
        records.observation(1, **at, distance=7000),
        records.observation(2, **at, carrier="united"),
        records.observation(3, **at, distance=5, wind=6),
        records.observation(4, **at, distance=-5),
        records.observation(5, **{**at, "known_at": "2026-02-01T00:00:00Z"}),
        records.observation(6, **at),
    ]
    await ingest.produce_records(name, sent, typed("observation"))
    assert await until(lambda: _has(ingest, name, 2))
    assert await until(lambda: _quarantined(ingest, name, 4))
    log = {entry["id"]: entry for entry in await ingest.logged(name)}
    assert [each["rule"] for each in log["o1"]["warnings"]] == ["max"]
    assert "warnings" not in log["o6"]
    reasons = {entry["id"]: entry["reason"] for entry in await ingest.quarantined(name)}
    assert reasons == {"o2": "pattern", "o3": "rule:plausible", "o4": "min", "o5": "late"}
    counted = f'everloop_ingest_warnings_total{{field="distance",pipeline="{name}",rule="max"}} 1.0'

    async def told() -> bool:
        async with httpx.AsyncClient(base_url=ingest.url) as client:
            return counted in (await client.get("/metrics")).text

    assert await until(told)


async def _has(ingest, name: str, count: int) -> bool:
    return len(await ingest.logged(name)) >= count


async def _quarantined(ingest, name: str, count: int) -> bool:
    return len(await ingest.quarantined(name)) >= count
