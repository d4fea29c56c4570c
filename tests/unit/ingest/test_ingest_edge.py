"""The HTTP edge without a broker: bodies, budget, unavailability."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from everloop_ingest.application.submitting import InboundRecord, Unavailable
from everloop_ingest.domain.contract import Contract
from everloop_ingest.entrypoints import http
from everloop_ingest.entrypoints.body import Budget
from everloop_ingest.entrypoints.http import Edge, routes
from everloop_kernel.auth import LOCAL_CALLER
from everloop_kernel.http import EXCEPTION_HANDLERS
from everloop_schemas.partition import partition_of
from everloop_schemas.pipeline import Pipeline, load
from starlette.applications import Starlette
from starlette.testclient import TestClient

TEXT = """
pipeline: flights
partition_by: [origin]
observation: {event_time: departure, fields: {origin: {type: category}}}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
"""


class Broker:
    """Remembers what was published, or is away."""

    def __init__(self) -> None:
        self.records: list[tuple[str, InboundRecord]] = []
        self.away = False

    async def publish(self, topic, records) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("Kafka has not acknowledged the records within 10 s")
        self.records += [(topic, record) for record in records]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def client(broker):
    return _client(broker)


def _client(broker: Broker, *, knows_all: bool = True, budget: int = 10_000) -> TestClient:
    pipeline = load(TEXT)
    assert isinstance(pipeline, Pipeline), pipeline
    contracts = {"flights": Contract(pipeline)}
    edge = Edge(contracts.get, lambda: knows_all, broker.publish, 5_000, Budget(budget))
    app = Starlette(routes=routes(edge), exception_handlers=EXCEPTION_HANDLERS)

    async def local(scope, receive, send) -> None:
        scope["everloop.caller"] = LOCAL_CALLER
        await app(scope, receive, send)

    return TestClient(local)


def observation(number: int) -> dict[str, object]:
    return {"id": f"a{number}", "departure": "2026-01-01T05:15:00Z", "origin": "EWR"}


URL = "/v1/pipelines/flights/observations"


def test_records_are_published_as_they_came_on_their_partition(client, broker) -> None:
    """The worker must see the producer's own bytes, on the partition of their key."""
    body = b'{"id": "a1",  "departure":"2026-01-01T05:15:00Z", "origin":"EWR"}'
    answer = client.post(URL, content=body, headers={"ce-source": "tower"})
    assert (answer.status_code, answer.json()["results"]) == (202, [{"status": "accepted", "id": "a1"}])
    ((topic, record),) = broker.records
    assert topic == "producer-record-published-v1.flights"
    assert (record.value, record.key, record.partition) == (body, b"EWR", partition_of(b"EWR", 4))
    assert dict(record.headers)["ce_source"] == b"tower"
    assert dict(record.headers)["ce_type"] == b"io.everloop.observation"


def test_an_array_element_is_published_alone(client, broker) -> None:
    """Each row is a record of its own."""
    client.post(URL, json=[observation(1), {"id": 5}, observation(2)])
    assert [json.loads(record.value)["id"] for _, record in broker.records] == ["a1", "a2"]


def test_no_broker_no_promise(client, broker) -> None:
    """202 without an acknowledgement would be a lie."""
    broker.away = True
    answer = client.post(URL, json=observation(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "again" in answer.json()["detail"]


def test_a_refused_request_needs_no_broker(client, broker) -> None:
    """A mistake is the sender's to mend, whatever the broker does."""
    broker.away = True
    assert client.post(URL, json={"id": 5}).status_code == 422


def test_an_incomplete_list_of_pipelines_is_no_404(broker) -> None:
    """A producer that is told 404 while ingest starts would give up for good."""
    client = _client(broker, knows_all=False)
    assert client.post("/v1/pipelines/other/labels", json={}).status_code == 503


def test_memory_is_bounded(broker) -> None:
    """More bodies than fit are answered 429 at once."""
    client = _client(broker, budget=50)
    answer = client.post(URL, json=observation(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


def test_the_budget_is_given_back() -> None:
    """A request that failed must not keep its share for ever."""
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(RuntimeError), budget.hold(10):
            raise RuntimeError
    with budget.hold(10):
        pass


def test_a_body_that_hides_its_length_is_cut_off(client) -> None:
    """Chunked bodies must not fill the memory."""
    answer = client.post(URL, content=iter([b"x" * 1000] * 10))
    assert answer.status_code == 413


def test_now_is_utc() -> None:
    """known_at must not depend on the server's zone."""
    assert abs((http._now() - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize("kind", ["observations", "labels"])
def test_a_check_answers_as_publishing_would_and_publishes_nothing(client, broker, kind) -> None:
    """A history of a million rows must be known to be right before the first of them is in the log."""
    time = "departure" if kind == "observations" else "event_time"
    good = {"id": "a", time: "2026-01-01T00:00:00Z", "origin": "EWR"}
    good |= {} if kind == "observations" else {"delay": 1}
    rows = [good, {**good, "origin": None}, {**good, "speed": 1}]
    answer = client.post(f"/v1/pipelines/flights/{kind}/check", json=rows)
    assert (answer.status_code, answer.json()["accepted"], answer.json()["refused"]) == (200, 1, 2)
    checked = answer.json()["results"]
    assert broker.records == []
    assert client.post(f"/v1/pipelines/flights/{kind}", json=rows).json()["results"] == checked
    assert len(broker.records) == 1
