"""A broken gate on the data keeps the whole platform from training on it, until a person takes the data."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e.small_loop import eventually
from everloop.client import Client
from everloop.stack import Ports, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PIPELINE = "gated-pumps"
FILE = f"""
pipeline: {PIPELINE}
partition_by: [site]
partitions: 2
observation:
  event_time: at
  replay_sources: [history]
  notify_every: 100
  fields:
    site: {{type: category}}
    pressure: {{type: number}}
    heat: {{type: number, nullable: true}}
label:
  type: binary
  fields: {{hours_left: {{type: number}}}}
  value: {{fails: hours_left < 24}}
features: {{pressure: pressure, heat: heat}}
training:
  when: {{new_labelled_rows: 1400, drift: true, max_age: null, cooldown: 0s}}
  model: {{trees: 10, leaves: 7}}
  minimum_rows: 300
quality: {{window: 6h}}
"""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 1500


def records(first: int, *, nulls: float) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Observations every five minutes, each with its label half an hour later."""
    observations, labels = [], []
    for number in range(first, first + ROWS):
        chance = random.Random(number)
        at = BEGIN + number * timedelta(minutes=5)
        site, pressure = chance.choice(("north", "south", "west")), chance.gauss(5, 1)
        heat = None if chance.random() < nulls else chance.gauss(60, 10)
        told = {"id": f"row-{number}", "site": site}
        observations.append(
            {**told, "at": _text(at), "known_at": _text(at), "pressure": pressure, "heat": heat}
        )
        late = _text(at + timedelta(minutes=30))
        hours = 10 if pressure + chance.gauss(0, 0.5) > 5 else 50
        labels.append({**told, "event_time": late, "known_at": late, "hours_left": hours})
    return observations, labels


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: Path = tmp_path_factory.mktemp("gated")
    with Stack(folder, ports=Ports.free(), fsync=False) as stack, Client(stack.addresses) as found:
        yield found


def test_training_does_not_start_on_broken_data(client: Client) -> None:
    """A gauge that sends nulls must not get into the next model because nobody was watching."""
    client.apply(FILE)
    publish(client, *records(0, nulls=0.0))
    eventually("the first run has ended", lambda: [r for r in runs(client) if r["state"] == "trained"])
    eventually("ingest has the profile", lambda: client.quality(PIPELINE)["profile"])
    publish(client, *records(ROWS, nulls=0.4))
    eventually("all labels are recorded", lambda: client.training(PIPELINE)["labels"] == 2 * ROWS)
    training = client.training(PIPELINE)
    assert "heat:null" in training["blocked"]
    assert training["waiting_for"].startswith("blocked by the quality of the data: heat:null")
    assert training["new_labels"] >= 1400
    assert len(runs(client)) == 1
    shown = client.quality(PIPELINE)
    assert shown["blocked"]
    assert any(gate["gate"] == "heat:null" for window in shown["windows"] for gate in window["broken"])
    accepted = client.accept_quality(PIPELINE, "the gauge is gone for good")
    assert "heat:null" in accepted["accepted"]
    second = eventually(
        "the second run has started", lambda: runs(client)[0] if len(runs(client)) > 1 else None
    )
    assert second["trigger"]["kind"] == "new-data"
    assert client.training(PIPELINE)["blocked"] is None


def publish(client: Client, observations: list[dict[str, Any]], labels: list[dict[str, Any]]) -> None:
    for kind, rows in (("observations", observations), ("labels", labels)):
        result = client.publish(PIPELINE, kind, rows, source="history")  # type: ignore[arg-type]
        assert result.accepted == len(rows), result.refused[:3]


def runs(client: Client) -> list[dict[str, Any]]:
    return client.runs(PIPELINE)


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
