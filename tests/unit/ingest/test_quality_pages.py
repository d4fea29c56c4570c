"""What people see of the data gates over HTTP and on the command line, and how they take data as it is."""

from datetime import timedelta
from typing import Any

import pytest
from everloop.cli import quality
from everloop.cli.app import app as commands
from everloop_ingest.application.submitting import InboundRecord, Unavailable
from everloop_ingest.entrypoints.quality import QualityPages, quality_routes
from everloop_kernel.auth import LOCAL_CALLER
from everloop_kernel.http import EXCEPTION_HANDLERS
from everloop_schemas.cloudevents import decode
from everloop_schemas.events import QualityMeasured, QualityNoted
from starlette.applications import Starlette
from starlette.testclient import TestClient
from typer.testing import CliRunner
from unit.ingest.data_gates_rig import BEGIN, Rig, hour

PATH = "/v1/pipelines/pumps/quality"


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
def client(rig: Rig, broker: Broker) -> TestClient:
    def measured(_: str) -> list[QualityMeasured]:
        book = rig.book
        windows = [
            QualityMeasured(pipeline="pumps", window=book.windows[each]) for each in sorted(book.windows)
        ]
        standing = [QualityMeasured(pipeline="pumps", standing=book.standing)] if book.standing else []
        return [*standing, *windows]

    contracts = {"pumps": rig.contract}
    pages = QualityPages(contracts.get, lambda _: rig.profile, measured, broker.publish)
    app = Starlette(routes=quality_routes(pages), exception_handlers=EXCEPTION_HANDLERS)

    async def local(scope: Any, receive: Any, send: Any) -> None:
        scope["everloop.caller"] = LOCAL_CALLER
        await app(scope, receive, send)

    return TestClient(local)


def break_it(rig: Rig) -> None:
    rig.feed(hour(0, heat=None))
    for number in (1, 2):
        rig.feed(hour(number, heat=None))


def test_windows_and_the_block_are_shown(client: TestClient, rig: Rig) -> None:
    """Whoever wonders why nothing trains finds gate, figure and limit in one place."""
    assert client.get(PATH).json()["windows"] == []
    break_it(rig)
    found = client.get(PATH, params={"windows": 2}).json()
    assert found["blocked"]
    assert found["blocked_reason"].startswith("not_null(heat) is 1, expected at most")
    assert [each["start"] for each in found["windows"]] == [
        (BEGIN + timedelta(hours=n)).isoformat().replace("+00:00", "Z") for n in (1, 2)
    ]
    assert client.get(PATH, params={"windows": "all"}).status_code == 422
    assert client.get(PATH.replace("pumps", "nobody")).status_code == 404


def test_taking_data_as_it_is_is_a_note_with_name_and_reason(
    client: TestClient, rig: Rig, broker: Broker
) -> None:
    """The decision goes the way of the tallies, so it is judged once and in its turn."""
    assert client.post(PATH + "/accept", json={"reason": "known"}).status_code == 409
    break_it(rig)
    for body in ({}, {"reason": ""}, {"reason": "x" * 501}, [1]):
        assert client.post(PATH + "/accept", json=body).status_code == 422
    assert client.post(PATH + "/accept", content=b"{").status_code == 400
    answer = client.post(PATH + "/accept", json={"reason": "the gauge is gone"})
    assert (answer.status_code, answer.json()["accepted"]) == (202, ["not_null(heat)"])
    ((topic, record),) = broker.records
    event = decode(QualityNoted, record.value, record.headers)
    assert isinstance(event, QualityNoted)
    assert topic == QualityNoted.topic
    assert event.accepted is not None
    assert (event.accepted.by, event.accepted.reason) == (LOCAL_CALLER.name, "the gauge is gone")
    rig.book.accept(event.accepted, rig.rules)
    assert rig.held == []


def test_an_absent_broker_is_told(client: TestClient, rig: Rig, broker: Broker) -> None:
    """A decision that was not stored must not look as if it were."""
    break_it(rig)
    broker.away = True
    assert client.post(PATH + "/accept", json={"reason": "known"}).status_code == 503


def test_the_command_shows_what_holds_training_back(
    client: TestClient, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`everloop quality NAME` is enough; `show` need not be known."""
    break_it(rig)
    monkeypatch.setattr(
        quality.Client,
        "quality",
        lambda _, name, windows: client.get(PATH, params={"windows": windows}).json(),
    )
    shown: list[str] = []
    monkeypatch.setattr(quality.console, "print", lambda text="", **_: shown.append(str(text)))
    result = CliRunner().invoke(commands, ["quality", "pumps"])
    assert result.exit_code == 0, result.output
    assert "Training is held back" in "\n".join(shown)
    assert "everloop quality accept pumps" in "\n".join(shown)
    result = CliRunner().invoke(commands, ["quality", "pumps", "--json"])
    assert '"blocked": true' in result.output
