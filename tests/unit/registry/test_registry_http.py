from contextlib import asynccontextmanager

import httpx
import pytest
from everloop_kernel.auth import Tokens, create_token
from everloop_kernel.health import Health
from everloop_kernel.service import application
from everloop_registry.application.review_model import review_model
from everloop_registry.entrypoints.http import Api, routes

FILE = """
pipeline: q
partition_by: [origin]
observation: {event_time: at, fields: {origin: {type: category}}}
label: {type: binary, fields: {delay: {type: number}}, value: {late: delay > 15}}
"""


class MemoryTopics:
    """Topics that are always there, unless Kafka is said to be away."""

    error: Exception | None = None

    async def ensure(self, pipeline) -> None:
        if self.error:
            raise self.error


@pytest.fixture
def topics() -> MemoryTopics:
    return MemoryTopics()


@pytest.fixture
def api(work, office, topics) -> Api:
    @asynccontextmanager
    async def begin():
        yield work

    return Api(begin, office, topics, {"k" * 16: "ab" * 32})


@pytest.fixture
def tokens_file(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def client_of(api):
    def _client(tokens: Tokens, token: str | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(
            application(routes(api), tokens, Health([])), raise_app_exceptions=False
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)

    return _client


@pytest.fixture
def local(client_of) -> httpx.AsyncClient:
    return client_of(Tokens(None))


CHANGES = [
    ("PUT", "/v1/pipelines/p"),
    ("POST", "/v1/pipelines/p/models/1/approve"),
    ("POST", "/v1/pipelines/p/models/1/reject"),
    ("POST", "/v1/pipelines/p/rollback"),
    ("POST", "/v1/pipelines/p/pins/1"),
    ("DELETE", "/v1/pipelines/p/pins/1"),
]
PAGES = ["", "/models", "/models/1", "/deployment", "/history", "/versions/1"]


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_readers_change_nothing(client_of, tokens_file, method, path, work) -> None:
    """A dashboard's token must not be able to approve a model."""
    token = create_token(tokens_file, "dashboard", ["reader"])
    answer = await client_of(Tokens(tokens_file), token).request(method, path)
    assert answer.status_code == 403
    assert work.trail == []


@pytest.mark.parametrize("page", PAGES)
async def test_pages_need_a_token_of_the_pipeline(client_of, tokens_file, page) -> None:
    """One team's token must not open another team's models."""
    other = create_token(tokens_file, "other", ["admin"], ["another-pipeline"])
    tokens = Tokens(tokens_file)
    assert (await client_of(tokens).get(f"/v1/pipelines/p{page}")).status_code == 401
    assert (await client_of(tokens, other).get(f"/v1/pipelines/p{page}")).status_code == 403


async def test_the_list_shows_what_the_token_covers(client_of, tokens_file, define) -> None:
    define()
    define(pipeline="secret")
    token = create_token(tokens_file, "team", ["reader"], ["p"])
    answer = await client_of(Tokens(tokens_file), token).get("/v1/pipelines")
    assert [item["pipeline"] for item in answer.json()["pipelines"]] == ["p"]


async def test_every_page_reads_a_known_model(local, work, office, define, trained) -> None:
    define()
    await review_model(trained(), work, office)
    for page in PAGES:
        answer = await local.get(f"/v1/pipelines/p{page}")
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("page", PAGES)
async def test_what_nobody_defined_is_not_found_in_words(local, page) -> None:
    answer = await local.get(f"/v1/pipelines/p{page}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_history_names_the_tokens_owner(  # noqa: PLR0917  (fixtures)
    client_of, tokens_file, work, office, define, trained
) -> None:
    """Whoever types another's name into `by` must not become them."""
    define(mode="manual")
    await review_model(trained(), work, office)
    token = create_token(tokens_file, "lee", ["operator"])
    client = client_of(Tokens(tokens_file), token)
    answer = await client.post("/v1/pipelines/p/models/1/approve", json={"by": "kim", "reason": "ok"})
    assert answer.status_code == 200
    assert work.kept["p", 1].decision.by == "kim (lee)"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"\xff", b'{"reason": 1}', b'{"why": "x"}', b'{"reason": "\\u0000"}', b"[" * 100_000],
)
async def test_an_unreadable_decision_decides_nothing(  # noqa: PLR0917  (fixtures)
    local, work, office, define, trained, body
) -> None:
    define(mode="manual")
    await review_model(trained(), work, office)
    answer = await local.post("/v1/pipelines/p/models/1/approve", content=body)
    assert answer.status_code == 422, answer.text
    assert work.kept["p", 1].state == "awaiting-approval"


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", b"- a", b"pipeline: [", b"a: 1\na: 2", b"\x00"])
async def test_an_unreadable_file_is_refused_with_what_to_mend(local, body) -> None:
    answer = await local.put("/v1/pipelines/q", content=body)
    assert answer.status_code == 422, answer.text


async def test_a_file_whose_tests_fail_is_refused_and_defines_nothing(local, work) -> None:
    """A feature that its own team says is wrong must not reach the stream."""
    tests = """
features: {seen_1h: "count(window='1h', by=[origin])"}
tests:
  - name: the first one
    records: [{id: a, at: '2013-01-01T05:00:00Z', origin: EWR}]
    vector: {seen_1h: 1}
"""
    answer = await local.put("/v1/pipelines/q", content=FILE + tests)
    assert answer.status_code == 422
    (problem,) = answer.json()["problems"]
    assert (problem["rule"], problem["line"]) == ("test", 11)
    assert work.emitted == []
    assert (await local.put("/v1/pipelines/q", content=FILE + tests.replace("1h: 1", "1h: 0"))).is_success


async def test_a_huge_body_is_refused(local) -> None:
    answer = await local.put("/v1/pipelines/q", content=b"#" * (10 << 20))
    assert answer.status_code == 413


async def test_without_kafka_a_definition_is_put_off_not_lost(local, topics, work) -> None:
    """A pipeline that is told of without topics would stop every service that reads of it."""
    topics.error = TimeoutError("no broker")
    answer = await local.put("/v1/pipelines/q", content=FILE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert work.emitted == []
    topics.error = None
    assert (await local.put("/v1/pipelines/q", content=FILE)).status_code == 201
