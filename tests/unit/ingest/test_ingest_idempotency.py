"""Idempotency-Key: a repetition is answered as the first time, a mistake is refused, memory is bounded."""

import asyncio

import pytest
from everloop_ingest.entrypoints.idempotency import Remembered, key_of
from everloop_kernel.http import Problem
from everloop_kernel.http_message import Response
from hypothesis import given
from hypothesis import strategies as st
from unit.ingest.edge_server import URL, Broker, edge, observation

KEY = {"idempotency-key": '"order-1"'}
NDJSON = {"content-type": "application/x-ndjson"}


async def test_a_repetition_is_answered_as_before_and_publishes_nothing() -> None:
    """A client that lost the answer must get it, and the same one."""
    broker = Broker()
    async with edge(broker) as client:
        first = await client.post(URL, json=[observation(1), {"id": 2}], headers=KEY)
        again = await client.post(
            URL, json=[observation(1), {"id": 2}], headers={"idempotency-key": "order-1"}
        )
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(broker.records) == 1


async def test_the_same_key_with_another_request_is_refused() -> None:
    """Somebody's bug must not look like success."""
    broker = Broker()
    async with edge(broker) as client:
        await client.post(URL, json=observation(1), headers=KEY)
        body = await client.post(URL, json=observation(2), headers=KEY)
        source = await client.post(URL, json=observation(1), headers={**KEY, "ce-source": "other"})
        elsewhere = await client.post("/v1/pipelines/flights/labels", json={"id": 1}, headers=KEY)
    assert (body.status_code, source.status_code) == (422, 422)
    assert body.json()["title"] == "Idempotency-Key reused"
    assert len(broker.records) == 1
    assert elsewhere.json()["title"] == "Every record was refused"  # another path, another request


async def test_two_at_once_is_a_conflict() -> None:
    """Two copies under way must not both be taken."""
    broker = Broker()
    broker.go.clear()
    async with edge(broker) as client:
        first = asyncio.create_task(client.post(URL, json=observation(1), headers=KEY))
        await asyncio.sleep(0.1)
        second = await client.post(URL, json=observation(1), headers=KEY)
        broker.go.set()
        assert (await first).status_code == 202
    assert (second.status_code, second.headers["retry-after"]) == (409, "1")


async def test_what_may_succeed_later_is_not_remembered() -> None:
    """A 503 that is repeated for an hour would be worse than none."""
    broker = Broker()
    broker.away_after = 0
    async with edge(broker) as client:
        refused = await client.post(URL, json=observation(1), headers=KEY)
        broker.away_after = None
        again = await client.post(URL, json=observation(1), headers=KEY)
    assert (refused.status_code, again.status_code) == (503, 202)


async def test_a_stream_is_compared_without_being_published_again() -> None:
    """A gigabyte sent twice is read twice, and published once."""
    broker = Broker()
    body = b'{"id":"a1","departure":"2026-01-01T05:15:00Z","origin":"EWR"}\n' * 2000
    async with edge(broker) as client:
        first = await client.post(URL, content=body, headers={**KEY, **NDJSON})
        again = await client.post(URL, content=body, headers={**KEY, **NDJSON})
        other = await client.post(URL, content=body + b"{}\n", headers={**KEY, **NDJSON})
    assert (first.content, other.status_code) == (again.content, 422)
    assert len(broker.records) == 2000


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5000), st.integers(0, 20)), max_size=80))
def test_memory_and_time_are_bounded(steps: list[tuple[int, int, int]]) -> None:
    """Keys are without end; what is remembered is not."""
    now = 0.0
    remembered = Remembered(20_000, 60, clock=lambda: now)
    for key, size, pause in steps:
        now += pause
        name = ("caller", "path", str(key))
        if remembered.begin(name) is None:
            remembered.end(name, b"d", Response(b"x" * size, 202))
        assert remembered._bytes <= 20_000
        assert remembered._bytes == sum(each.size for each in remembered._answers.values())
        assert all(each.at > now - 60 for each in remembered._answers.values())
    assert not remembered._under_way


@pytest.mark.parametrize(
    ("value", "key"), [('"a b"', "a b"), ("8e03978e-40d5", "8e03978e-40d5"), (" k ", "k"), (None, None)]
)
def test_keys_with_and_without_quotes(value: str | None, key: str | None) -> None:
    """The draft writes a quoted string; most clients send the bare one."""
    assert key_of(value) == key


@pytest.mark.parametrize("value", ["", '"', '""', "a b", '"a', "a,b", "é", '"\\"'])
def test_a_malformed_key_is_refused(value: str) -> None:
    """A key that two servers read differently protects nobody."""
    with pytest.raises(Problem):
        key_of(value)
