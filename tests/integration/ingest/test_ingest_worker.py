"""Ingest from its inbound topic to its log, as a process on a real Kafka."""

import base64
import random
from typing import Any

import pytest
from everloop_kernel.admin import ensure_topics
from everloop_kernel.exactly_once import check
from everloop_schemas.canonical import dumps
from everloop_schemas.topics import pipeline_topics

pytestmark = pytest.mark.integration

OBSERVATION = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"history"),
    ("ce_type", b"io.everloop.observation"),
]


async def test_records_reach_the_log_once_normalised(ingest, records, unique, until) -> None:
    """Observations and labels in one log, duplicates dropped, numbers and times in one form."""
    name = unique("flights")
    await ingest.define(name)
    sent = [records.observation(n) for n in range(30)] + [records.label(n) for n in range(30)]
    await ingest.produce_records(name, [*sent, *sent[:10]])
    assert await until(lambda: _has(ingest, name, 60))
    assert set((await ingest.ids(name)).values()) == {1}
    entry = next(e for e in await ingest.logged(name) if e["kind"] == "observation" and e["id"] == "o0")
    assert entry["fields"] == {"origin": "EWR", "carrier": "UA", "distance": 1400.0, "wind": None}
    assert entry["event_time"] == "2026-01-01T05:15:00Z"
    assert entry["source"] == "kafka"


async def test_duplicates_are_recognised_after_kill_9(ingest, records, unique, until) -> None:
    """What a restart forgets would stand twice in the log, and twice in the training data."""
    name = unique("flights")
    await ingest.define(name)
    sent = [records.observation(n) for n in range(100)]
    await ingest.produce_records(name, sent)
    assert await until(lambda: _has(ingest, name, 100))
    ingest.kill()
    await ingest.produce_records(name, [*sent, records.observation(100)])
    ingest.start()
    assert await until(lambda: _has(ingest, name, 101))
    assert set((await ingest.ids(name)).values()) == {1}


async def test_records_survive_kills_under_load(ingest, records, unique, until) -> None:
    """Kill it again and again: none lost, none doubled."""
    name = unique("flights")
    await ingest.define(name)
    sent = [records.observation(n) for n in range(600)]
    chance = random.Random(7)
    for first in range(0, 600, 150):
        part = sent[first : first + 150]
        await ingest.produce_records(name, part + chance.sample(part, 10))
        ingest.kill()
        ingest.start(wait=False)
    ingest.wait_ready()
    assert await until(lambda: _has(ingest, name, 600), seconds=40)
    verdict = check([record["id"] for record in sent], [e["id"] for e in await ingest.logged(name)])
    assert verdict.ok, verdict


async def test_a_record_on_the_wrong_partition_is_forwarded(ingest, records, unique, until) -> None:
    """librdkafka clients hash differently: their records must still meet their key's others."""
    name = unique("flights")
    await ingest.define(name)
    topic = f"producer-record-published-v1.{name}"
    values = [dumps(records.observation(n, origin="EWR")) for n in range(8)]
    await ingest.produce(topic, [(n % 4, b"EWR", value, ()) for n, value in enumerate(values * 2)])
    assert await until(lambda: _has(ingest, name, 8))
    assert set((await ingest.ids(name)).values()) == {1}


async def test_bad_records_are_quarantined_with_every_reason(ingest, records, unique, until) -> None:
    """People must see what was wrong, and have the bytes to send again."""
    name = unique("flights")
    await ingest.define(name)
    bad = [
        records.observation(1, distance="far", origin="LHR", surprise=1),
        records.observation(2, distance=-5),
        records.observation(3, scheduled_departure="2999-01-01T00:00:00Z"),
        records.observation(4, known_at="2026-01-01T00:00:00Z"),
    ]
    await ingest.produce_records(name, [*bad, records.observation(5)])
    raw = [b'{"id":"\xff"}', b'{"id":"a","id":"b"}', b'{"id": NaN}', None, b"[" * 5000]
    topic = f"producer-record-published-v1.{name}"
    odd_headers = [("null", None), ("bytes", b"\xff")]
    await ingest.produce(topic, [(0, b"k", value, odd_headers) for value in raw])
    assert await until(lambda: _quarantined(ingest, name, 9))
    found = {entry["id"]: entry for entry in await ingest.quarantined(name) if entry["id"]}
    assert {v["rule"] for v in found["o1"]["violations"]} == {"type", "allowed-values", "unknown-field"}
    assert found["o2"]["reason"] == "min"
    assert found["o3"]["reason"] == "event-in-future"
    assert found["o4"]["reason"] == "known-at-not-allowed"
    others = [entry for entry in await ingest.quarantined(name) if entry["id"] is None]
    assert {entry["reason"] for entry in others} >= {"invalid-utf8", "duplicate-key", "no-value"}
    assert (
        base64.b64decode(next(e for e in others if e["reason"] == "duplicate-key")["data_base64"]) == raw[1]
    )
    assert await until(lambda: _has(ingest, name, 1))


async def test_a_replay_source_gives_its_own_times(ingest, records, unique, until) -> None:
    """A year replayed in minutes must behave like a year lived."""
    name = unique("flights")
    await ingest.define(name)
    past = records.observation(
        1, scheduled_departure="2013-01-01T05:15:00Z", known_at="2013-01-01T05:15:00.25Z"
    )
    await ingest.produce_records(name, [past], OBSERVATION)
    assert await until(lambda: _has(ingest, name, 1))
    (entry,) = await ingest.logged(name)
    assert (entry["known_at"], entry["source"]) == ("2013-01-01T05:15:00.250000Z", "history")


async def test_new_data_is_announced_with_counts_that_survive(ingest, records, unique, until) -> None:
    """The trainer counts on these numbers: a restart must not begin at zero."""
    name = unique("flights")
    await ingest.define(name)
    await ingest.produce_records(name, [records.observation(n, origin="EWR") for n in range(60)])
    assert await until(lambda: _has(ingest, name, 60))
    ingest.kill()
    ingest.start()
    await ingest.produce_records(name, [records.label(n, origin="EWR") for n in range(60)])
    assert await until(lambda: _announced(ingest, name, observations=60, labels=40))
    events = await _announcements(ingest, name)
    assert len({event["id"] for event in events}) == len(events)


async def test_an_unknown_pipelines_records_wait_in_the_dead_letters(ingest, unique, until) -> None:
    """A topic without a definition must neither stop ingest nor lose its records."""
    name = unique("nobody")
    await ensure_topics(ingest.kafka, pipeline_topics(name, 1))
    await ingest.produce(f"producer-record-published-v1.{name}", [(0, b"k", b'{"id":"a"}', ())])

    async def dead() -> bool:
        return any(d["everloop-dlq-topic"].endswith(name) for d in await ingest.dead())

    assert await until(dead, seconds=30)
    letter = next(d for d in await ingest.dead() if d["everloop-dlq-topic"].endswith(name))
    assert letter["everloop-dlq-reason"] == "no-such-pipeline"


async def test_a_graceful_end_leaves_nothing_behind(ingest, records, unique) -> None:
    """SIGTERM must end the process in time, with exit code 0."""
    name = unique("flights")
    await ingest.define(name)
    await ingest.produce_records(name, [records.observation(n) for n in range(300)])
    assert ingest.end() == 0, ingest.log()


async def _announced(ingest, name: str, *, observations: int, labels: int) -> bool:
    events = await _announcements(ingest, name)
    return bool(events) and events[-1]["observations"] == observations and events[-1]["labels"] >= labels


async def _announcements(ingest, name: str) -> list[dict[str, Any]]:
    return [event for event in await ingest.read("ingest-data-arrived-v1") if event["pipeline"] == name]


async def _has(ingest, name: str, count: int) -> bool:
    return len(await ingest.logged(name)) >= count


async def _quarantined(ingest, name: str, count: int) -> bool:
    return len(await ingest.quarantined(name)) >= count
