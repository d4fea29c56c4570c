"""Asking the log: a vector taken apart, and features as they were known, on real services."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from everloop.client import Client
from everloop.errors import EverloopError
from integration.history.history_rig import Rig, wait_for

pytestmark = pytest.mark.integration

START = datetime(2020, 1, 1, tzinfo=UTC)


def minute(number: float) -> str:
    return (START + timedelta(minutes=number)).isoformat()


def observation(number: int, **changes: Any) -> dict[str, Any]:
    chance = random.Random(number)
    shop = chance.choice("abcd")
    times = {"sold_at": minute(number), "known_at": minute(number)}
    return {"id": f"o{number}", **times, "shop": shop, "size": chance.uniform(0, 9), **changes}


def label(number: int, known: float, **changes: Any) -> dict[str, Any]:
    of = observation(number)
    times = {"event_time": minute(number + 20), "known_at": minute(known)}
    return {"id": of["id"], **times, "shop": of["shop"], "gain": of["size"] - 5, **changes}


def publish(client: Client, name: str, kind: Any, records: list[dict[str, Any]]) -> None:
    result = client.publish(name, kind, records, source="history")
    assert result.refused == ()


def vector_of(client: Client, name: str, observation_id: str) -> Any:
    """Its explanation, once the feature service has logged it."""
    found: list[Any] = []

    def is_logged() -> bool:
        try:
            found.append(client.explain_vector(name, observation_id, newest=3))
        except EverloopError as error:
            assert "no vector" in str(error)  # noqa: PT017  # any other one is a failure
        return bool(found)

    wait_for(is_logged, 30)
    return found[0]


@pytest.fixture(scope="module")
def client(rig: Rig):
    with rig.client() as found:
        yield found


@pytest.fixture(scope="module")
def sales(rig: Rig, client: Client) -> str:
    """A pipeline with a day of history."""
    rig.define("sales")
    rig.known_to_ingest("sales")
    publish(client, "sales", "observations", [observation(number) for number in range(400)])
    return "sales"


def test_asking_for_the_past_after_late_data_gives_the_answer_of_then(client: Client, sales: str) -> None:
    """A training set of last month, built again, must be the one that was built then."""
    vector_of(client, sales, "o399")
    rows = [{"shop": shop, "size": 1.5, "at": minute(at)} for at in (10, 200, 399) for shop in "abcz"]
    then = client.features(sales, rows)
    assert then["n"].max() > 1
    late = [
        observation(number + 1_000, sold_at=minute(number), known_at=minute(400))
        for number in range(0, 400, 3)
    ]
    publish(client, sales, "observations", late)
    publish(client, sales, "labels", [label(number, known=401) for number in range(0, 300, 2)])
    now = vector_of(client, sales, "o1399")
    assert client.features(sales, rows).equals(then)
    after = client.features(sales, rows, at=minute(402))
    assert not after["mean_size"].equals(then["mean_size"])
    assert now.equal


def test_what_was_known_is_what_was_logged(client: Client, sales: str) -> None:
    """Features asked for the moment before an observation came are those of its logged vector."""
    for number in (57, 211):
        record = observation(number)
        row = {"shop": record["shop"], "size": record["size"], "sold_at": record["sold_at"]}
        before = START + timedelta(minutes=number) - timedelta(microseconds=1)
        (found,) = client.features(sales, [row], at=before).to_dict("records")
        logged = {v.explained.feature: v.logged for v in vector_of(client, sales, record["id"]).values}
        assert {name: found[name] for name in logged} == {
            name: pytest.approx(value, rel=0, abs=0, nan_ok=True)
            if value is not None
            else pytest.approx(float("nan"), nan_ok=True)
            for name, value in logged.items()
        }


def test_a_vector_is_taken_apart_into_its_records(client: Client, sales: str) -> None:
    """The records of a window are those that the log holds before the observation, and they add up."""
    found = vector_of(client, sales, "o300")
    assert found.equal
    assert found.missing_before is None
    values = {value.explained.feature: value for value in found.values}
    shop = observation(300)["shop"]
    mine = [number for number in range(300) if observation(number)["shop"] == shop]
    assert values["n"].explained.aggregates[0].found == values["n"].logged
    (mean_size,) = values["mean_size"].explained.aggregates
    assert (mean_size.records, mean_size.found) == (len(mine), len(mine))
    assert [one.id for one in mean_size.newest] == [f"o{number}" for number in mine[-3:]]
    assert [one.value for one in mean_size.newest] == [observation(number)["size"] for number in mine[-3:]]


def test_an_id_without_a_vector_is_said_to_have_none(client: Client, sales: str) -> None:
    with pytest.raises(EverloopError, match="no vector has this id"):
        client.explain_vector(sales, "nobody")
