"""What people see of the data gates over HTTP and on the command line, and how they take data as it is."""

import asyncio
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import pytest
from everloop.cli import quality
from everloop.cli.app import app as commands
from everloop_ingest.application.submitting import InboundRecord, Unavailable
from everloop_ingest.entrypoints.quality import QualityPages, quality_routes
from everloop_kernel.auth import LOCAL_CALLER, Tokens
from everloop_kernel.health import Health
from everloop_kernel.http_message import Request, Response
from everloop_kernel.http_routes import Router
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import QualityMeasured, QualityNoted
from typer.testing import CliRunner
from unit.ingest.data_gates_rig import BEGIN, Rig, hour

PATH = "/v1/pipelines/pumps/quality"


class Pages:
    """The routes, without a socket."""

    def __init__(self, routes: Router) -> None:
        self._routes = routes

    def get(self, path: str, windows: object = None) -> tuple[int, Any]:
        query = "" if windows is None else f"?windows={windows}"
        return self._ask(b"GET", path + query, b"")

    def post(self, path: str, body: bytes) -> tuple[int, Any]:
        return self._ask(b"POST", path, body)

    def _ask(self, method: bytes, target: str, body: bytes) -> tuple[int, Any]:
        answer = self._routes(Request(method, target.encode(), {b"host": b"here"}, body))
        response = answer if isinstance(answer, Response) else asyncio.run(_awaited(answer))
        return response.status, json.loads(response.body)


async def _awaited(answer: Awaitable[Response]) -> Response:
    return await answer


class Broker:
    """Keeps what is published; `away` refuses."""

    def __init__(self) -> None:
        self.away = False
        self.records: list[tuple[str, InboundRecord]] = []

    async def publish(self, topic: str, records: Any) -> None:
        if self.away:
            raise Unavailable("Kafka is away")
        self.records += [(topic, each) for each in records]


@pytest.fixture
def rig() -> Rig:
    return Rig("quality: {learned: false, expect: [{expect: not_null, field: heat, mostly: 0.9}]}")


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def client(rig: Rig, broker: Broker) -> Pages:
    def measured(_: str) -> list[QualityMeasured]:
        book = rig.book
        windows = [
            QualityMeasured(pipeline="pumps", window=book.windows[each]) for each in sorted(book.windows)
        ]
        standing = [QualityMeasured(pipeline="pumps", standing=book.standing)] if book.standing else []
        return [*standing, *windows]

    contracts = {"pumps": rig.contract}
    pages = QualityPages(contracts.get, lambda _: rig.profile, measured, broker.publish)
    return Pages(Router(quality_routes(pages), Tokens(None), Health([])))


def break_it(rig: Rig) -> None:
    rig.feed(hour(0, heat=None))
    for number in (1, 2):
        rig.feed(hour(number, heat=None))


def test_windows_and_the_block_are_shown(client: Pages, rig: Rig) -> None:
    """Whoever wonders why nothing trains finds gate, figure and limit in one place."""
    assert client.get(PATH)[1]["windows"] == []
    break_it(rig)
    found = client.get(PATH, 2)[1]
    assert found["blocked"]
    assert found["blocked_reason"].startswith("not_null(heat) is 1, expected at most")
    assert [each["start"] for each in found["windows"]] == [
        (BEGIN + timedelta(hours=n)).isoformat().replace("+00:00", "Z") for n in (1, 2)
    ]
    assert client.get(PATH, "all")[0] == 422
    assert client.get(PATH.replace("pumps", "nobody"))[0] == 404


def test_taking_data_as_it_is_is_a_note_with_name_and_reason(client: Pages, rig: Rig, broker: Broker) -> None:
    """The decision goes the way of the tallies, so it is judged once and in its turn."""
    assert client.post(PATH + "/accept", b'{"reason": "known"}')[0] == 409
    break_it(rig)
    for body in ({}, {"reason": ""}, {"reason": "x" * 501}, [1]):
        assert client.post(PATH + "/accept", json.dumps(body).encode())[0] == 422
    assert client.post(PATH + "/accept", b"{")[0] == 400
    status, answer = client.post(PATH + "/accept", b'{"reason": "the gauge is gone"}')
    assert (status, answer["accepted"]) == (202, ["not_null(heat)"])
    ((topic, record),) = broker.records
    event = decode(QualityNoted, record.value, record.headers)
    assert isinstance(event, QualityNoted)
    assert topic == QualityNoted.topic
    assert event.accepted is not None
    assert (event.accepted.by, event.accepted.reason) == (LOCAL_CALLER.name, "the gauge is gone")
    rig.book.accept(event.accepted, rig.rules)
    assert rig.held == []


def test_an_absent_broker_is_told(client: Pages, rig: Rig, broker: Broker) -> None:
    """A decision that was not stored must not look as if it were."""
    break_it(rig)
    broker.away = True
    assert client.post(PATH + "/accept", b'{"reason": "known"}')[0] == 503


def test_the_command_shows_what_holds_training_back(
    client: Pages, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`everloop quality NAME` is enough; `show` need not be known."""
    break_it(rig)
    monkeypatch.setattr(
        quality.Client,
        "quality",
        lambda _, name, windows: client.get(PATH, windows)[1],
    )
    shown: list[str] = []
    monkeypatch.setattr(quality.console, "print", lambda text="", **_: shown.append(str(text)))
    result = CliRunner().invoke(commands, ["quality", "pumps"])
    assert result.exit_code == 0, result.output
    assert "Training is held back" in "\n".join(shown)
    assert "everloop quality accept pumps" in "\n".join(shown)
    result = CliRunner().invoke(commands, ["quality", "pumps", "--json"])
    assert '"blocked": true' in result.output
