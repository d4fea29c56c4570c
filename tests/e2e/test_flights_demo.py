"""The main job, shortened: real flights through the whole loop until a model answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DAYS = 34


def test_a_month_of_flights_trains_approves_and_serves_a_model(tmp_path: Path) -> None:
    """What `make demo` promises: by events alone, real data ends in answers better than the prior."""
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "examples/flights",
        "--days",
        str(DAYS),
        "--seconds",
        "15",
        "--report",
        str(report),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    found = json.loads(report.read_text())
    counts, loss = found["counts"], found["prequential_log_loss"]
    assert counts["sent"] == counts["accepted"] + counts["quarantined"] + counts["duplicates"]
    assert counts["predicted"] >= counts["joined"] == loss["rows"] > 500
    assert counts["failed_requests"] == 0
    assert loss["champion"] < 1.1 * loss["prior"]  # of a few days: a month says which is better
    assert found["runs"][0]["trigger"] == "new-data"
    assert found["approvals"][0] == 1
    assert found["trace"]["services"] == [
        f"everloop-{name}" for name in ("feature", "ingest", "monitor", "registry", "serving", "trainer")
    ]
