"""What a pipeline says of its rules holds at the HTTP edge too, and observations are retracted there."""

import json

import pytest
from everloop_ingest.domain import contract as contracts
from everloop_schemas.pipeline import Pipeline, load
from unit.ingest import edge_server
from unit.ingest.edge_server import URL, Broker, edge, observation

TEXT = """
pipeline: flights
partition_by: [origin, gate]
observation:
  event_time: departure
  fields:
    origin: {type: category}
    gate: {type: integer, nullable: true}
    seats: {type: integer, nullable: true, min: 1, max: 500, actions: {min: quarantine, max: warn}}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
"""
RETRACTIONS = "/v1/pipelines/flights/retractions"


@pytest.fixture(autouse=True)
def pipeline(monkeypatch) -> None:
    monkeypatch.setattr(edge_server, "TEXT", TEXT)


async def test_quarantine_and_warn_are_published_and_said() -> None:
    """A producer must know of each row whether it will count."""
    broker = Broker()
    rows = [
        observation(1, seats=0),
        observation(2, seats=900),
        observation(3, seats=5),
        observation(4, seats="x"),
    ]
    async with edge(broker) as client:
        found = (await client.post(URL, json=rows)).json()
    assert (found["accepted"], found["refused"]) == (3, 1)
    assert [row["status"] for row in found["results"]] == ["accepted", "accepted", "accepted", "refused"]
    assert found["results"][0]["quarantine"][0]["rule"] == "min"
    assert found["results"][1]["warnings"][0]["rule"] == "max"
    assert set(found["results"][2]) == {"status", "id"}
    assert [record.key for record in broker.records] == [b"EWR\x1f"] * 3


async def test_an_observation_is_retracted_by_its_path() -> None:
    """Who knows the id and its key can take the observation back."""
    broker = Broker()
    async with edge(broker) as client:
        done = await client.delete(f"{URL}/a%2F1?origin=EWR&gate=3", headers={"ce-source": "tower"})
        missing = await client.delete(f"{URL}/a1?gate=3")
        strange = await client.delete(f"{URL}/a1?origin=EWR&color=red")
        broken = await client.delete(f"{URL}/a1?origin")
        wrong = await client.post(f"{URL}/a1", json={})
    assert [each.status_code for each in (done, missing, strange, broken, wrong)] == [202, 422, 422, 400, 405]
    (record,) = broker.records
    assert json.loads(record.value) == {"id": "a/1", "origin": "EWR", "gate": 3}
    headers = dict(record.headers)
    assert (headers["ce_type"], headers["ce_source"]) == (b"io.everloop.retraction", b"tower")
    assert record.key == b"EWR\x1f3"


async def test_retractions_come_in_batches_too() -> None:
    """A sensor that was broken for a day spoilt more than one row."""
    broker = Broker()
    lines = b"".join(b'{"id":"a%d","origin":"EWR","gate":null}\n' % number for number in range(700))
    async with edge(broker) as client:
        headers = {"content-type": "application/x-ndjson"}
        found = (await client.post(RETRACTIONS, content=lines + b'{"id":"b"}\n', headers=headers)).json()
    assert (found["accepted"], found["refused"]) == (700, 1)
    assert {dict(record.headers)["ce_type"] for record in broker.records} == {b"io.everloop.retraction"}


@pytest.mark.parametrize(
    "rule",
    ["allowed_lateness: 7d", "rules: [{name: far, expr: seats > 1}]", "pattern: '[A-Z]+'", "max_length: 3"],
)
def test_a_pipeline_with_rules_that_a_glance_does_not_know_has_none(rule: str) -> None:
    """A quick look that misses a rule would let its records into the log's queue unsaid."""
    text = TEXT.replace("  event_time:", f"  {rule}\n  event_time:")
    if rule.startswith(("pattern", "max")):
        text = TEXT.replace("{type: category}", f"{{type: category, {rule}}}")
    found = load(text)
    assert isinstance(found, Pipeline), found
    assert "observation" not in contracts.Contract(found).glances
    plain = load(TEXT)
    assert isinstance(plain, Pipeline), plain
    assert set(contracts.Contract(plain).glances) == {"observation", "label"}


def test_every_kind_has_its_path() -> None:
    """A kind that HTTP producers cannot send would surprise them."""
    assert {f"io.everloop.{kind}" for kind in ("observation", "label", "retraction")} == set(contracts.KINDS)
