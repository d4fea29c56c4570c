"""The HTTP edge as producers see it."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from everloop_kernel.admin import ensure_topics
from everloop_kernel.auth import create_token
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.topics import platform_topics

pytestmark = pytest.mark.integration


def post(url: str, **options: Any) -> httpx.Response:
    return httpx.post(url, timeout=60, **options)


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=60)


async def test_single_array_and_ndjson_are_answered_row_by_row(ingest, records, unique, until) -> None:
    """A producer must know of each row whether it was taken, in the order in which it sent them."""
    name = unique("flights")
    await ingest.define(name)
    url = f"{ingest.url}/v1/pipelines/{name}"
    single = post(f"{url}/observations", json=records.observation(1))
    assert (single.status_code, single.json()["accepted"]) == (202, 1)
    rows = [records.observation(2), records.observation(3, distance=-1), records.observation(4)]
    array = post(f"{url}/observations", json=rows)
    assert array.status_code == 202
    assert [row["status"] for row in array.json()["results"]] == ["accepted", "refused", "accepted"]
    assert array.json()["results"][1]["violations"][0]["rule"] == "min"
    lines = "\n".join([json.dumps(records.label(1)), "{broken", json.dumps(records.label(2)), ""])
    ndjson = post(f"{url}/labels", content=lines, headers={"content-type": "application/x-ndjson"})
    assert [row.get("reason") for row in ndjson.json()["results"]] == [None, "malformed-json", None]

    async def logged() -> bool:
        return len(await ingest.logged(name)) == 5

    assert await until(logged)
    assert set((await ingest.ids(name)).values()) == {1}


async def test_a_large_array_passes(ingest, records, unique, until) -> None:
    """Batches are how real producers send."""
    name = unique("flights")
    await ingest.define(name)
    rows = [records.observation(n) for n in range(2000)]
    answer = post(f"{ingest.url}/v1/pipelines/{name}/observations", json=rows)
    assert (answer.status_code, answer.json()["accepted"]) == (202, 2000)

    async def logged() -> bool:
        return len(await ingest.logged(name)) == 2000

    assert await until(logged)


async def test_what_is_wrong_is_said_with_the_right_status(ingest, records, unique) -> None:
    """Each mistake has its own status, as problem+json that says what to do."""
    name = unique("flights")
    await ingest.define(name)
    url = f"{ingest.url}/v1/pipelines/{name}/observations"
    good = records.observation(1)
    cases = [
        (post(url, content="{not json"), 400),
        (post(url, content=b'{"id": "\xff"}'), 400),
        (post(url, content="[1, 2"), 400),
        (post(url, content=""), 400),
        (post(url, json=[]), 400),
        (post(url, json=good, headers={"ce-source": "x" * 300}), 400),
        (post(f"{ingest.url}/v1/pipelines/nobody/observations", json=good), 404),
        (get(url), 405),
        (post(url, content=b"x" * (9 << 20)), 413),
        (post(url, content=iter([b"x" * (1 << 20)] * 10)), 413),
        (post(url, content="a,b", headers={"content-type": "text/csv"}), 415),
        (post(url, json=good, headers={"content-encoding": "br"}), 415),
        (post(url, json={**good, "distance": "far"}), 422),
        (post(url, json=[{**good, "origin": "LHR"}, {**good, "x": 1}]), 422),
        (post(url, content=b'{"id": "a", "id": "b"}'), 422),
        (post(url, json={**good, "scheduled_departure": "2999-01-01T00:00:00Z"}), 422),
    ]
    for answer, status in cases:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"]
    many = cases[-3][0].json()
    assert (many["refused"], len(many["results"])) == (2, 2)
    assert await ingest.logged(name) == []


async def test_tokens_and_roles(stopped_ingest, records, unique, tmp_path) -> None:
    """With tokens set up, nobody writes without one, and only the replay role rewrites time."""
    tokens = tmp_path / "tokens"
    producer = create_token(tokens, "p", ["producer"])
    replayer = create_token(tokens, "r", ["producer", "replay"])
    reader = create_token(tokens, "q", ["reader"])
    name = unique("flights")
    stopped_ingest.start()
    await stopped_ingest.define(name)
    stopped_ingest.end()
    stopped_ingest.extra = {"EVERLOOP_TOKENS_FILE": str(tokens)}
    stopped_ingest.start()
    url = f"{stopped_ingest.url}/v1/pipelines/{name}/observations"

    def ask(token: str | None, **changes) -> httpx.Response:
        headers = {"ce-source": "history"} | ({"authorization": f"Bearer {token}"} if token else {})
        return post(url, json=records.observation(1, **changes), headers=headers)

    known_at = "2026-01-01T06:00:00Z"
    assert ask(None).status_code == 401
    assert ask("wrong").status_code == 401
    assert ask(reader).status_code == 403
    assert ask(producer).status_code == 202
    refused = ask(producer, known_at=known_at)
    assert (refused.status_code, refused.json()["results"][0]["reason"]) == (422, "known-at-not-allowed")
    assert ask(replayer, known_at=known_at).status_code == 202


async def test_without_a_broker_the_edge_says_so_and_recovers(own_kafka, ingest_on, records, until) -> None:
    """202 means stored: without Kafka there is none, and after its return there is again."""
    await ensure_topics(KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers), platform_topics())
    ingest = ingest_on(own_kafka)
    ingest.start()
    await ingest.define("flights")
    url = f"{ingest.url}/v1/pipelines/flights/observations"
    own_kafka.child.signal(9)
    refused = await asyncio.to_thread(post, url, json=records.observation(1))
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    own_kafka.start()

    async def accepted() -> bool:
        answer = await asyncio.to_thread(post, url, json=records.observation(1))
        return answer.status_code == 202

    assert await until(accepted, seconds=60)

    async def logged() -> bool:
        return len(await ingest.logged("flights")) == 1

    assert await until(logged, seconds=60)
