"""Quarantined records go back, or are put away: each once, on a real Kafka with a real ingest."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime

import httpx
import pytest
from everloop.cli.app import app
from everloop.errors import EverloopError
from everloop.quarantine.entries import Wanted
from everloop.quarantine.resolving import REPLAY_HEADER, Order, resolve
from everloop_kernel.exactly_once import identities
from typer.testing import CliRunner

pytestmark = pytest.mark.integration

BINARY = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"crew"),
    ("ce_type", b"io.everloop.observation"),
]


@pytest.fixture(scope="module")
def ingest(lasting_ingest):
    """One process for all tests here; each has a pipeline of its own."""
    return lasting_ingest


@pytest.fixture
def quarantine(ingest, monkeypatch, tmp_path):
    """Run `everloop quarantine …`, perhaps with a patch: exit code, what it printed (read), and its error."""
    monkeypatch.setenv("EVERLOOP_KAFKA_BOOTSTRAP_SERVERS", ingest.bootstrap)

    async def call(*arguments: str, patch: str | None = None):
        command = ["quarantine", *arguments, "--json"]
        if patch is not None:
            (tmp_path / "patch.json").write_text(patch)
            command += ["--patch", str(tmp_path / "patch.json")]
        done = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert done.exception is None or isinstance(done.exception, EverloopError | SystemExit), (
            done.exception
        )
        printed = json.loads(done.stdout) if done.stdout.strip() else None
        return done.exit_code, printed, done.exception

    return call


@pytest.fixture
async def flights(ingest, records, unique, until):
    """Three records in quarantine: two with a lower-case origin, one with a distance below 0."""
    name = unique("flights")
    await ingest.define(name)
    broken = [
        records.observation(1, origin="ewr"),
        records.observation(2, origin="ewr", wind=3),
        records.observation(3, distance=-1),
    ]
    await ingest.produce_records(name, broken, BINARY)
    assert await until(lambda: _holds(ingest, name, 3))
    return name


async def _holds(ingest, name, count):
    return len(await ingest.quarantined(name)) >= count


async def _replays(ingest, name) -> Counter[str]:
    """How often each entry was sent again."""
    found = await identities(
        ingest.kafka,
        f"producer-record-published-v1.{name}",
        lambda record: (dict(record.headers).get(REPLAY_HEADER) or b"").decode(),
    )
    return Counter(filter(None, found))


async def test_mended_records_are_accepted_once_and_leave_the_list(
    quarantine, flights, ingest, tmp_path
) -> None:
    """A thousand records with one typo must not be typed again, nor enter the log twice."""
    patch = '[{"op": "replace", "path": "/origin", "value": "EWR"}]'
    wanted = ("replay", flights, "--reason", "allowed-values")
    _, would, _ = await quarantine(*wanted, "--dry-run", patch=patch)
    assert [json.loads(one["data"])["origin"] for one in would] == ["EWR", "EWR"]
    assert not await _replays(ingest, flights)
    code, done, _ = await quarantine(*wanted, "--why", "upper case", patch=patch)
    assert (code, done["sent"], done["accepted"]) == (0, 2, 2)
    code, again, _ = await quarantine(*wanted, patch=patch)
    assert (code, again["sent"]) == (0, 0)
    assert await ingest.ids(flights) == {"observation-o1": 1, "observation-o2": 1}
    assert {entry["source"] for entry in await ingest.logged(flights)} == {"crew"}
    _, left, _ = await quarantine("list", flights)
    assert [one["id"] for one in left] == ["o3"]
    _, runs, _ = await quarantine("history", flights)
    assert [(run["action"], run["records"], run["reason"]) for run in runs] == [("replayed", 2, "upper case")]
    assert runs[0]["patch_sha256"]


async def test_replay_after_the_contract_has_changed(quarantine, flights, ingest, records, until) -> None:
    """What was refused by a rule that was wrong must come in as it was sent."""
    wider = records.PIPELINE.replace("min: 0, max: 6000", "min: -5, max: 6000")
    await ingest.define(flights, wider)
    accepted = f"{ingest.url}/v1/pipelines/{flights}/observations"
    async with httpx.AsyncClient() as client:

        async def known() -> bool:
            answer = await client.post(
                accepted, json=[{**records.observation(0), "distance": -2, "id": "probe"}]
            )
            return answer.json()["accepted"] == 1

        assert await until(known)
    code, done, _ = await quarantine("replay", flights, "--reason", "min")
    assert (code, done["accepted"]) == (0, 1)
    assert await ingest.ids(flights) == {"observation-o3": 1, "observation-probe": 1}


async def test_what_is_refused_again_is_said_with_its_reason(quarantine, flights, ingest, until) -> None:
    """A replay that changed nothing must not look like a success, and must not send the old entry again."""
    code, done, _ = await quarantine("replay", flights, "--reason", "min")
    assert code == 1
    (record,) = done["records"]
    assert record["became"] == "quarantined"
    assert "distance: min" in record["detail"]
    code, again, _ = await quarantine("replay", flights, "--id", record["entry"])
    assert (code, again["sent"]) == (0, 0)
    _, entries, _ = await quarantine("list", flights, "--reason", "min")
    assert [one["id"] for one in entries] == ["o3"]
    assert entries[0]["entry"] != record["entry"]


async def test_a_record_without_id_or_source_is_sent_once_too(quarantine, flights, ingest, until) -> None:
    """Bytes that nobody can read have no id to recognise a second copy by."""
    await ingest.produce(f"producer-record-published-v1.{flights}", [(2, None, b'{"id": "UA1', [])])
    assert await until(lambda: _holds(ingest, flights, 4))
    _, entries, _ = await quarantine("list", flights, "--reason", "malformed-json")
    (entry,) = (one["entry"] for one in entries)
    for _ in range(2):
        await quarantine("replay", flights, "--id", entry)
    assert (await _replays(ingest, flights))[entry] == 1
    _, shown, _ = await quarantine("show", flights, entry)
    assert shown["resolution"]["action"] == "replayed"
    assert shown["headers"] == []


async def test_a_record_that_came_in_meanwhile_is_dropped(quarantine, flights, ingest, records, until):
    """The producer has mended and sent it already: the replay must say so, and add nothing."""
    await ingest.produce_records(flights, [records.observation(3)], BINARY)

    async def one() -> bool:
        return len(await ingest.logged(flights)) == 1

    assert await until(one)
    code, done, _ = await quarantine("replay", flights, "--reason", "min", patch='{"distance": 1400}')
    assert (code, done["dropped"]) == (0, 1)
    assert await ingest.ids(flights) == {"observation-o3": 1}


async def test_runs_side_by_side_send_each_record_once(flights, ingest) -> None:
    """Two people on call run the same command at the same moment."""
    orders = [Order("replayed", f"person-{n}", "") for n in range(3)]
    await asyncio.gather(
        *(resolve(ingest.kafka, flights, Wanted(), order) for order in orders), return_exceptions=True
    )
    await resolve(ingest.kafka, flights, Wanted(until=datetime.now(UTC)), Order("replayed", "last", ""))
    firsts = [one for one in await _entries(ingest, flights) if one in await _replays(ingest, flights)]
    assert set((await _replays(ingest, flights)).values()) == {1}
    assert len(firsts) >= 3


async def _entries(ingest, name) -> list[str]:
    return [f"{one['inbound_partition']}-{one['inbound_offset']}" for one in await ingest.quarantined(name)]


async def test_discarded_records_are_gone_from_list_and_count(quarantine, flights) -> None:
    """Test data that nobody wants must not hide what matters, and somebody must answer for it."""
    _, counted, _ = await quarantine("count", flights)
    assert counted["records"] == 3
    assert {(one["reason"], one["field"], one["source"], one["records"]) for one in counted["reasons"]} == {
        ("allowed-values", "origin", "crew", 2),
        ("min", "distance", "crew", 1),
    }
    _, done, _ = await quarantine("discard", flights, "--reason", "min", "--why", "a test")
    assert len(done["discarded"]) == 1
    _, counted, _ = await quarantine("count", flights)
    assert counted["records"] == 2
    _, everything, _ = await quarantine("list", flights, "--all")
    assert [one["resolution"]["reason"] for one in everything if one["resolution"]] == ["a test"]


async def test_a_patch_that_does_not_fit_leaves_the_record(quarantine, flights) -> None:
    """A record that the patch cannot change must stay, and be named."""
    patch = '[{"op": "replace", "path": "/nothing", "value": 1}]'
    code, done, _ = await quarantine("replay", flights, "--reason", "min", patch=patch)
    assert (code, done["sent"]) == (1, 0)
    assert done["records"][0]["became"] == "not sent"
    _, left, _ = await quarantine("list", flights)
    assert len(left) == 3


async def test_an_unknown_pipeline_and_a_bad_patch_are_named(quarantine) -> None:
    """A typo must not look like an empty quarantine."""
    code, _, error = await quarantine("list", "no-such-pipeline")
    assert code == 1
    assert "There is no pipeline no-such-pipeline" in str(error)
    code, _, error = await quarantine("replay", "x", patch="nope")
    assert code == 1
    assert "is no JSON patch" in str(error)
