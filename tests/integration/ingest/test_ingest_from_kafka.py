"""Any producer may write to the inbound topic: what HTTP refuses is quarantined, with the same codes."""

import json
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from everloop_kernel.exactly_once import identities
from everloop_schemas.canonical import dumps

pytestmark = pytest.mark.integration

BAD: dict[str, bytes] = {
    "malformed-json": b'{"id": NaN}',
    "invalid-utf8": b'{"id":"\xff"}',
    "duplicate-key": b'{"id":"a","id":"b"}',
    "too-deep": b'{"id":' + b"[" * 500 + b"]" * 500 + b"}",
    "number-range": b'{"id":"a","distance":99999999999999999999999}',
    "not-an-object": b"[1]",
}


def bad_records(observation: Any) -> dict[str, bytes]:
    """One record for each code, as bytes."""
    return BAD | {
        "required": dumps({"id": "r1", "scheduled_departure": "2026-01-01T05:15:00Z"}),
        "type": dumps(observation(2, distance="far")),
        "min": dumps(observation(3, distance=-5)),
        "max": dumps(observation(4, distance=7000)),
        "allowed-values": dumps(observation(5, origin="LHR")),
        "unknown-field": dumps(observation(6, surprise=1)),
        "time": dumps(observation(7, scheduled_departure="yesterday")),
        "event-in-future": dumps(observation(8, scheduled_departure="2999-01-01T00:00:00Z")),
        "known-at-not-allowed": dumps(observation(9, known_at="2026-01-01T00:00:00Z")),
        "id": dumps(observation(10, id="")),
        "control-character": dumps(observation(11, id="a\u0001")),
    }


async def test_what_http_refuses_is_quarantined_with_the_same_codes(ingest, records, unique, until) -> None:
    """A team that moves from HTTP to Kafka must find its mistakes under the same names."""
    name = unique("flights")
    await ingest.define(name)
    bad = bad_records(records.observation)
    url = f"{ingest.url}/v1/pipelines/{name}/observations"
    over_http = {}
    async with httpx.AsyncClient(timeout=30) as client:
        for code, value in bad.items():
            # as a line, since an array would be taken for many records
            answer = await client.post(url, content=value, headers={"content-type": "application/x-ndjson"})
            assert answer.status_code in (400, 422), answer.text
            over_http[code] = answer.json()["results"][0]["reason"]
    assert over_http == {code: code for code in bad}
    await ingest.produce(f"producer-record-published-v1.{name}", [(0, None, v, ()) for v in bad.values()])

    async def quarantined() -> bool:
        return len(await ingest.quarantined(name)) == len(bad)

    assert await until(quarantined)
    assert sorted(entry["reason"] for entry in await ingest.quarantined(name)) == sorted(bad)


async def test_any_clients_records_are_read(ingest, records, unique, until) -> None:
    """A console producer has no key and no headers; others have null ones, or CloudEvents in either mode."""
    name = unique("flights")
    await ingest.define(name)
    topic = f"producer-record-published-v1.{name}"
    attributes = {"specversion": "1.0", "id": "x", "source": "java", "type": "io.everloop.label"}
    structured = json.dumps({**attributes, "data": records.label(4)}).encode()
    binary = [(f"ce_{attribute}", value.encode()) for attribute, value in attributes.items()]
    kafka_connect = [("content-type", b"application/json"), ("ce_time", None), ("connect.name", b"\xff")]
    mode = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    sent: list[tuple[bytes | None, bytes, list[tuple[str, bytes | None]]]] = [
        (None, dumps(records.observation(1)), []),  # console producer, kcat
        (b"any key", dumps(records.observation(2)), kafka_connect),
        (b"\xff\xfe", json.dumps(records.observation(3), indent=2).encode(), [("trace", None)]),
        (None, structured, list(mode)),
        (b"JFK", dumps(records.label(1)), list(binary)),
    ]
    producer = AIOKafkaProducer(bootstrap_servers=ingest.bootstrap, compression_type="gzip")
    await producer.start()
    for key, value, headers in sent:
        await producer.send_and_wait(topic, value, key, headers=headers)
    await producer.stop()

    async def logged() -> bool:
        return len(await ingest.logged(name)) == 5

    assert await until(logged), await ingest.quarantined(name)
    entries = {f"{entry['kind']}-{entry['id']}": entry["source"] for entry in await ingest.logged(name)}
    assert entries == {
        "observation-o1": "kafka",
        "observation-o2": "kafka",
        "observation-o3": "kafka",
        "label-o4": "java",
        "label-o1": "java",
    }


async def test_a_label_sent_as_another_event_is_quarantined(ingest, records, unique, until) -> None:
    """An event of a type that nobody knows must not be guessed at."""
    name = unique("flights")
    await ingest.define(name)
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"s"),
        ("ce_type", b"com.example.x"),
    ]
    missing = headers[:2]
    topic = f"producer-record-published-v1.{name}"
    await ingest.produce(topic, [(0, None, dumps(records.label(1)), each) for each in (headers, missing)])

    async def quarantined() -> bool:
        return len(await ingest.quarantined(name)) == 2

    assert await until(quarantined)
    assert {entry["reason"] for entry in await ingest.quarantined(name)} == {"unknown-type", "cloudevent"}


async def test_a_record_with_an_old_timestamp_is_kept_as_long_as_any(ingest, records, unique, until) -> None:
    """Kafka's retention goes by the producer's timestamp: history was deleted before ingest had read it."""
    name = unique("flights")
    await ingest.define(name)
    topic = f"producer-record-published-v1.{name}"
    producer = AIOKafkaProducer(bootstrap_servers=ingest.bootstrap)
    await producer.start()
    sent = await producer.send_and_wait(topic, dumps(records.observation(1)), partition=0, timestamp_ms=1)
    await producer.stop()
    times = await identities(ingest.kafka, topic, lambda record: str(record.timestamp))
    assert sent.offset == 0
    assert min(map(int, times)) > 1_700_000_000_000
