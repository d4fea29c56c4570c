"""From a CSV that nobody has looked at to a model in production, by the commands that a beginner types."""

import os
import random
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e.small_loop import eventually
from everloop.client import Client
from everloop.errors import EverloopError
from everloop.stack import Ports, Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROWS = 3000
ENTRY = "from everloop.cli import main; main()"


def everloop(folder: Path, *arguments: str) -> str:
    """Run the command as a person does, in `folder`."""
    command = [sys.executable, "-c", ENTRY, *arguments]
    env = {**os.environ, "EVERLOOP_DATA_DIR": str(folder / "stack")}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_sample(path: Path) -> None:
    """Pumps that are hot fail soon: German dates, semicolons, decimal commas, headers that are no names."""
    chance = random.Random(11)
    lines = ["Zeit;Standort;Druck (bar);Temperatur;class"]
    for number in range(ROWS):
        at = datetime(2025, 1, 1, tzinfo=UTC) + number * timedelta(minutes=20)
        heat, pressure = chance.gauss(60, 10), chance.gauss(5, 1)
        failed = "fails" if heat / 10 + pressure > 11.7 else "runs"
        site = chance.choice(["Nord", "Süd"])
        lines.append(f"{at:%d.%m.%Y %H:%M};{site};{pressure:.2f};{heat:.1f};{failed}")
    path.write_text("\n".join(lines).replace("\n", "\r\n") + "\r\n", "utf-8-sig")


def test_a_csv_becomes_a_served_model(tmp_path: Path) -> None:
    """What init writes must train as it is: a file that validates and never trains helps nobody."""
    write_sample(tmp_path / "pumps.csv")
    told = everloop(tmp_path, "init", "--from", "pumps.csv", "--records", "records")
    assert "label: class" in told
    everloop(tmp_path, "check", "pipeline.yaml")
    with (
        Stack(tmp_path / "stack", ports=Ports.free(), fsync=False) as stack,
        Client(stack.addresses) as client,
    ):
        everloop(tmp_path, "apply", "pipeline.yaml")
        for kind in ("observations", "labels"):
            everloop(tmp_path, "publish", "pumps", kind, f"records/{kind}.ndjson", "--source", "history")
        eventually("a model is loaded", lambda: client.deployment("pumps").get("instances"), 240)
        assert "champion" in {model["stage"] for model in client.models("pumps")}
        hot = {"Standort": "Nord", "druck_bar": 7.5, "Temperatur": 80, "Zeit": "2025-03-01T12:00:00Z"}
        cool = {**hot, "druck_bar": 3.5, "Temperatur": 45}
        assert _answer(client, hot) > _answer(client, cool)


def _answer(client: Client, fields: dict[str, object]) -> float:
    """What serving says, once its instance holds the model."""
    until = time.monotonic() + 30
    while True:
        try:
            return client.predict("pumps", fields).output
        except EverloopError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
