"""The HTTP edge on its real server, without a broker: forms, answers, budget, unavailability."""

import asyncio
import gzip
import json
import zlib
from datetime import UTC, datetime

import pytest
import zstandard
from everloop_ingest.entrypoints import http
from everloop_ingest.entrypoints.body import Budget
from everloop_ingest.entrypoints.openapi import DOCUMENT
from everloop_kernel.http import Problem
from everloop_kernel.http_limits import Limits
from everloop_schemas.partition import partition_of
from unit.ingest.edge_server import URL, Broker, edge, observation

NDJSON = {"content-type": "application/x-ndjson"}
BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "b", "ce-type": "io.everloop.observation"}


def ids(broker: Broker) -> list[str]:
    return [json.loads(record.value)["id"] for record in broker.records]


def lines(count: int) -> bytes:
    return b"".join(json.dumps(observation(number)).encode() + b"\n" for number in range(count))


def event(number: int, **changes: object) -> dict[str, object]:
    attributes = {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "tower",
        "type": "io.everloop.observation",
    }
    return {**attributes, "data": observation(number), **changes}


async def test_records_are_published_as_they_came_on_their_partition() -> None:
    """The worker must see the producer's own bytes, on the partition of their key."""
    broker = Broker()
    body = b'{"id": "a1",  "departure":"2026-01-01T05:15:00Z", "origin":"EWR"}'
    async with edge(broker) as client:
        answer = await client.post(URL, content=body, headers={"ce-source": "tower%20one"})
    assert (answer.status_code, answer.json()["results"]) == (202, [{"status": "accepted", "id": "a1"}])
    (record,) = broker.records
    assert broker.topics == {"producer-record-published-v1.flights"}
    assert (record.value, record.key, record.partition) == (body, b"EWR", partition_of(b"EWR", 4))
    headers = dict(record.headers)
    assert (headers["ce_source"], headers["ce_type"]) == (b"tower one", b"io.everloop.observation")
    assert headers["ce_id"] == b"observation-a1"


async def test_rows_are_answered_in_their_order() -> None:
    """A producer must know of each row whether it was taken."""
    broker = Broker()
    rows = [observation(1), {"id": 5}, observation(2), observation(3, origin=7)]
    async with edge(broker) as client:
        array = (await client.post(URL, json=rows)).json()
        many = await client.post(
            URL, content=lines(1200) + b'{"id": NaN}\n\n  \r\n' + lines(1), headers=NDJSON
        )
    assert [row["status"] for row in array["results"]] == ["accepted", "refused", "accepted", "refused"]
    assert [row.get("row") for row in array["results"]] == [None, 1, None, 3]
    assert (many.json()["accepted"], many.json()["refused"]) == (1201, 1)
    assert many.json()["results"][1200]["reason"] == "malformed-json"
    assert ids(broker) == ["a1", "a2", *[f"a{number}" for number in range(1200)], "a0"]


@pytest.mark.parametrize("cut", [1, 7, 64, 1000])
async def test_lines_may_be_cut_anywhere(cut: int) -> None:
    """Networks cut anywhere, compression too."""
    broker, body = Broker(), lines(20).rstrip() + b"\r\n{\n"

    async def pieces():
        for first in range(0, len(body), cut):
            yield body[first : first + cut]

    async with edge(broker) as client:
        answer = await client.post(URL, content=pieces(), headers=NDJSON)
    assert (answer.json()["accepted"], answer.json()["refused"]) == (20, 1)
    assert ids(broker) == [f"a{number}" for number in range(20)]


async def test_a_stream_without_end_is_published_as_it_comes() -> None:
    """A gigabyte upload neither waits for its end nor is held in memory."""
    broker, sent = Broker(), asyncio.Event()

    async def pieces():
        yield lines(1000)
        async with asyncio.timeout(5):
            while len(broker.records) < 1000:  # noqa: ASYNC110  (the broker of this test is a list)
                await asyncio.sleep(0.01)
        sent.set()
        yield lines(30_000)

    async with edge(broker, max_body_bytes=1000) as client:
        answer = (await client.post(URL, content=pieces(), headers=NDJSON)).json()
    assert sent.is_set()
    assert (answer["accepted"], len(answer["results"]), answer["results_left_out"]) == (
        31_000,
        10_000,
        21_000,
    )


async def test_a_slow_broker_bounds_what_a_stream_has_under_way() -> None:
    """What the broker does not take must wait at the client."""
    broker = Broker()
    broker.go.clear()
    async with edge(broker) as client:
        asking = asyncio.create_task(client.post(URL, content=lines(20_000), headers=NDJSON))
        await asyncio.sleep(0.5)
        assert 0 < broker.most_under_way <= 2000
        broker.go.set()
        assert (await asking).json()["accepted"] == 20_000


async def test_a_line_longer_than_a_record_is_refused_and_not_held() -> None:
    """A file without line ends must not fill the memory."""
    broker = Broker()

    async def pieces():
        for _ in range(50):
            yield b"x" * 100_000
        yield b"\n" + lines(1)

    async with edge(broker) as client:
        answer = (await client.post(URL, content=pieces(), headers=NDJSON)).json()
    assert [row.get("reason") for row in answer["results"]] == ["too-large", None]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_compressed_bodies_are_unpacked(coding: str) -> None:
    """Several members or frames are one body, in both formats; a cut one is no body."""
    pack = gzip.compress if coding == "gzip" else zstandard.ZstdCompressor().compress
    broker, headers = Broker(), {"content-encoding": coding}
    async with edge(broker) as client:
        array = await client.post(URL, content=pack(json.dumps([observation(1)]).encode()), headers=headers)
        body = pack(lines(3)) + pack(lines(2))
        stream = await client.post(URL, content=body, headers={**headers, **NDJSON})
        cut = await client.post(URL, content=body[:-5], headers={**headers, **NDJSON})
        wrong = await client.post(URL, content=lines(1), headers=headers)
        nothing = await client.post(URL, content=b"", headers=headers)
    assert (array.json()["accepted"], stream.json()["accepted"]) == (1, 5)
    assert [answer.status_code for answer in (cut, wrong, nothing)] == [400, 400, 400]
    assert "ends too early" in cut.json()["detail"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize("form", ["application/json", "application/x-ndjson"])
async def test_a_bomb_is_refused(coding: str, form: str) -> None:
    """A kilobyte that unpacks to a gigabyte must cost neither memory nor time."""
    if coding == "zstd":
        bomb = zstandard.ZstdCompressor().compress(b" " * (300 << 20))
    else:
        packer = zlib.compressobj(9, wbits=31)
        bomb = b"".join([packer.compress(b" " * (1 << 20)) for _ in range(300)]) + packer.flush()
    async with edge(Broker()) as client:
        answer = await client.post(
            URL, content=bomb, headers={"content-encoding": coding, "content-type": form}
        )
    expected = (
        400 if (coding, form) == ("gzip", "application/x-ndjson") else 413
    )  # gzip grows 1000-fold at most
    assert answer.status_code == expected


async def test_cloudevents_in_every_mode() -> None:
    """Event producers have one format for every receiver."""
    broker = Broker()
    structured, batch = "application/cloudevents+json; charset=utf-8", "application/cloudevents-batch+json"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with edge(broker) as client:
        one = await client.post(URL, json=observation(1), headers=BINARY)
        two = await client.post(
            URL, content=json.dumps(event(2, traceparent=trace)), headers={"content-type": structured}
        )
        events = [event(3), event(4, type="io.everloop.label"), event(5, source="x" * 300), {"id": "6"}]
        three = await client.post(URL, content=json.dumps(events), headers={"content-type": batch})
    assert [one.status_code, two.status_code, three.status_code] == [202, 202, 202]
    reasons = [row.get("reason") for row in three.json()["results"]]
    assert reasons == [None, "unknown-type", "source", "cloudevent"]
    assert [dict(record.headers)["ce_source"] for record in broker.records] == [b"b", b"tower", b"tower"]
    assert dict(broker.records[1].headers)["traceparent"] == trace.encode()
    assert ids(broker) == ["a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"ce-id": "1"}, 400),
        (
            {"ce-specversion": "0.3", "ce-id": "1", "ce-source": "b", "ce-type": "io.everloop.observation"},
            400,
        ),
        ({"ce-specversion": "1.0", "ce-id": "1", "ce-source": "b", "ce-type": "io.everloop.label"}, 422),
        ({"ce-source": "x" * 300}, 400),
        ({"ce-source": "a%00b"}, 400),
        ({"content-type": "text/csv"}, 415),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-encoding": "br"}, 415),
        ({"idempotency-key": ""}, 400),
        ({"idempotency-key": "k" * 300}, 400),
    ],
)
async def test_wrong_headers_have_their_own_status(headers: dict[str, str], status: int) -> None:
    """A producer that is configured wrongly must be told what."""
    broker = Broker()
    async with edge(broker) as client:
        answer = await client.post(URL, json=observation(1), headers=headers)
    assert (answer.status_code, broker.records) == (status, [])
    assert answer.json()["detail"]


async def test_a_missing_field_is_named_without_a_value() -> None:
    """An empty place between two marks reads like a value that got lost."""
    async with edge(Broker()) as client:
        answer = await client.post(URL, json={})
    assert answer.json()["detail"].startswith("id (required); send text of")


async def test_no_broker_no_promise() -> None:
    """202 without an acknowledgement would be a lie; what is known of the rows is said."""
    broker = Broker()
    broker.away_after = 1000
    async with edge(broker) as client:
        answer = await client.post(URL, content=lines(5000), headers=NDJSON)
        broker.away_after = 0
        single = await client.post(URL, json=observation(1))
        refused = await client.post(URL, json={"id": 5})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "again" in answer.json()["detail"]
    assert single.status_code == 503
    assert refused.json()["detail"].startswith("id: 5 (id); send text of")
    assert refused.status_code == 422  # a mistake is the sender's to mend, whatever the broker does


async def test_what_the_publisher_cannot_hold_is_429() -> None:
    """Back-pressure reaches the producer, not the memory."""
    broker = Broker()
    broker.full = True
    async with edge(broker) as client:
        answer = await client.post(URL, json=observation(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_an_incomplete_list_of_pipelines_is_no_404() -> None:
    """A producer that is told 404 while ingest starts would give up for good."""
    async with edge(Broker(), knows_all=False) as client:
        assert (await client.post("/v1/pipelines/other/labels", json={})).status_code == 503
    async with edge(Broker()) as client:
        assert (await client.post("/v1/pipelines/other/labels", json={})).status_code == 404


async def test_bodies_in_flight_are_bounded() -> None:
    """More bodies than fit are answered 429 at once, and the budget is given back."""
    broker = Broker()
    async with edge(broker, budget=200) as client:
        answer = await client.post(URL, json=[observation(n) for n in range(9)])
        hidden = await client.post(
            URL, content=iter_of(lines(9)), headers={"content-type": "application/json"}
        )
        small = [await client.post(URL, json=observation(1)) for _ in range(5)]
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert hidden.status_code == 429
    assert [each.status_code for each in small] == [202] * 5


async def iter_of(body: bytes):
    yield body


def test_the_budget_is_given_back() -> None:
    """A request that failed must not keep its share for ever."""
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(Problem), budget.share(5) as share:
            share.cover(11)
    assert budget.used == 0


async def test_bodies_that_are_too_large_are_cut_off() -> None:
    """Chunked bodies must not fill the memory; the reason reaches the client before a reset."""
    async with edge(Broker(), max_body_bytes=5000) as client:
        announced = await client.post(URL, content=b"[" + b" " * 6000)
        hidden = await client.post(URL, content=iter_of(b"[" + b" " * 6000))
        packed = await client.post(
            URL, content=gzip.compress(b" " * 100_000), headers={"content-encoding": "gzip"}
        )
    assert [answer.status_code for answer in (announced, hidden, packed)] == [413, 413, 413]


async def test_an_upload_that_breaks_off_says_how_far_it_came() -> None:
    """The rows before the break are stored; the producer must know that the rest is not."""
    broker = Broker()
    async with edge(broker, limits=Limits(request_seconds=0.3)) as client:

        async def pieces():
            yield lines(700)
            await asyncio.sleep(5)

        answer = await client.post(URL, content=pieces(), headers=NDJSON)
    assert answer.status_code == 408
    assert answer.json()["accepted"] == 700
    assert "again" in answer.json()["detail"]


async def test_the_description_is_served() -> None:
    """Clients are generated from it."""
    async with edge(Broker()) as client:
        found = (await client.get("/openapi.json")).json()
        wrong = await client.get(URL)
    assert found == DOCUMENT
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


async def test_any_number_of_requests_share_a_connection() -> None:
    """Batches of a busy producer must not queue for a new connection each."""
    broker = Broker()
    async with edge(broker) as client:
        answers = await asyncio.gather(*[client.post(URL, json=observation(n)) for n in range(200)])
    assert {answer.status_code for answer in answers} == {202}
    assert sorted(ids(broker)) == sorted(f"a{n}" for n in range(200))


async def test_refusals_are_listed_within_bounds() -> None:
    """A million refused rows must not become an answer of a gigabyte."""
    bad = b'{"id": "a", "x": "' + b"y" * 500 + b'"}\n'
    async with edge(Broker()) as client:
        answer = await client.post(URL, content=bad * 20_000, headers=NDJSON)
    found = answer.json()
    assert (answer.status_code, found["refused"]) == (422, 20_000)
    assert len(answer.content) < 3 << 20
    assert found["results_left_out"] == 20_000 - len(found["results"])


def test_now_is_utc() -> None:
    """known_at must not depend on the server's zone."""
    assert abs((http._now() - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize("kind", ["observations", "labels"])
async def test_a_check_answers_as_publishing_would_and_publishes_nothing(kind: str) -> None:
    """A history of a million rows must be known to be right before the first of them is in the log."""
    broker = Broker()
    time = "departure" if kind == "observations" else "event_time"
    good = {"id": "a", time: "2026-01-01T00:00:00Z", "origin": "EWR"}
    good |= {} if kind == "observations" else {"delay": 1}
    rows = [good, {**good, "origin": None}, {**good, "speed": 1}]
    url = URL.replace("observations", kind)
    async with edge(broker) as client:
        answer = await client.post(f"{url}/check", json=rows)
        assert broker.records == []
        published = await client.post(url, json=rows)
    assert (answer.status_code, answer.json()["accepted"], answer.json()["refused"]) == (200, 1, 2)
    assert published.json()["results"] == answer.json()["results"]
    assert len(broker.records) == 1
