"""The whole loop in small: a pipeline, some thousand labelled rows, a model, one prediction and its label."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from everloop.addresses import Addresses
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.inference import Prediction
from everloop.stack import Ports, Stack

PIPELINE = "pump-failure"
SOURCE = "small-loop"
FILE = f"""
pipeline: {PIPELINE}
partition_by: [site]
partitions: 2
observation:
  event_time: at
  replay_sources: [{SOURCE}]
  notify_every: 200
  fields:
    site: {{type: category}}
    pressure: {{type: number}}
    heat: {{type: number}}
label:
  type: binary
  fields: {{hours_left: {{type: number}}}}
  value: {{fails: hours_left < 24}}
  expected_after: 1h
features:
  pressure: pressure
  heat: heat
  heat_mean_6h: mean(heat, window='6h', by=[site])
training:
  when: {{new_labelled_rows: 2500, drift: false, cooldown: 1h}}
  model: {{trees: 20, leaves: 7, min_data_in_leaf: 20}}
  minimum_rows: 300
gates:
  - {{metric: log_loss, better_than: prior}}
"""
ROWS = 3000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_EVERY = timedelta(minutes=5)
_LABEL_AFTER = timedelta(minutes=30)


def eventually(what: str, ask: Callable[[], Any], seconds: float = 90.0) -> Any:
    """The first true answer."""
    until = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < until, f"it never came true that {what}"
        time.sleep(0.1)
    return answer


def observation(number: int, *, known: bool = True) -> dict[str, Any]:
    """One row: pumps that are hot and under pressure fail soon."""
    chance = random.Random(number)
    at = _START + number * _EVERY
    stamp = {"known_at": _text(at)} if known else {}
    return {
        "id": f"row-{number}",
        "at": _text(at),
        "site": chance.choice(("north", "south", "west")),
        "pressure": chance.gauss(5, 1),
        "heat": chance.gauss(60, 10),
        **stamp,
    }


def label(number: int) -> dict[str, Any]:
    """What became of a row."""
    row = observation(number)
    at = _text(_START + number * _EVERY + _LABEL_AFTER)
    worn = (row["pressure"] - 5) + (row["heat"] - 60) / 10 + random.Random(f"{number}").gauss(0, 0.5)
    hours = 10 if worn > 0 else 50
    return {"id": row["id"], "event_time": at, "known_at": at, "site": row["site"], "hours_left": hours}


class SmallLoop:
    """Drives a running stack."""

    def __init__(self, addresses: Addresses) -> None:
        self.client = Client(addresses)

    def train(self) -> None:
        """Define the pipeline, publish labelled rows, and wait until serving answers with a model of them."""
        self.client.apply(FILE)
        eventually("ingest knows the pipeline", self._is_known)
        for first in range(0, ROWS, 500):
            rows = range(first, first + 500)
            self._publish("observations", [observation(number) for number in rows])
            self._publish("labels", [label(number) for number in rows])
        eventually("a model is loaded", self._is_loaded)

    def predict(self, number: int = ROWS) -> Prediction:
        """Ask for one prediction, publish its observation and its label, wait until both are joined."""
        row = observation(number, known=False)
        made = self.client.predict(
            PIPELINE, {k: v for k, v in row.items() if k != "id"}, prediction_id=row["id"]
        )
        self._publish("observations", [observation(number)])
        self._publish("labels", [label(number)])
        eventually("the prediction is joined", lambda: self._is_joined(made.id))
        return made

    def trace_of(self, prediction: Prediction) -> str:
        """The trace in which serving answered, as the monitor keeps it."""
        return str(self.client.predictions(prediction.id, PIPELINE)[0]["trace_id"])

    def close(self) -> None:
        self.client.close()

    def _publish(self, kind: Any, records: list[dict[str, Any]]) -> None:
        result = self.client.publish(PIPELINE, kind, records, source=SOURCE)
        assert result.accepted == len(records), result.refused[:3]

    def _is_known(self) -> bool:
        try:
            self._publish("observations", [observation(0)])
        except EverloopError as refused:
            return _expected(refused, "There is no pipeline")
        return True

    def _is_loaded(self) -> bool:
        return bool(self.client.deployment(PIPELINE).get("instances"))

    def _is_joined(self, prediction: str) -> bool:
        try:
            found = self.client.predictions(prediction, PIPELINE)
        except EverloopError as refused:
            return _expected(refused, "has reached the monitor")
        return any(one["label"] is not None for one in found)


@contextmanager
def traced_prediction(folder: Path, endpoint: str) -> Iterator[str]:
    """Run the loop once on a stack of its own, which sends its spans to `endpoint`: a prediction's trace."""
    with Stack(folder, ports=Ports.free(), fsync=False, env={"EVERLOOP_OTLP_ENDPOINT": endpoint}) as stack:
        loop = SmallLoop(stack.addresses)
        try:
            loop.train()
            yield loop.trace_of(loop.predict())
        finally:
            loop.close()


def _expected(refused: EverloopError, words: str) -> bool:
    """False for a refusal that passes by itself; any other is raised."""
    if words not in refused.message:
        raise refused
    return False


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
