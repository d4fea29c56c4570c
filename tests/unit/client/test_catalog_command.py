"""`everloop catalog` prints what the registry's page holds."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from everloop.cli.app import app
from everloop.cli.catalog_profiles import print_profiles, profile_rows
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.pipelines import PipelineVersion
from everloop_registry.entrypoints.catalog import catalog_view, changes_view
from everloop_registry.entrypoints.views import pipeline_view
from everloop_schemas.pipeline import Pipeline, load, to_definition
from typer.testing import CliRunner

EXAMPLE = Path(__file__).parents[3] / "examples" / "flights" / "pipeline.yaml"


def versions() -> list[PipelineVersion]:
    pipeline = load(EXAMPLE.read_text("utf-8"))
    assert isinstance(pipeline, Pipeline)
    first = PipelineVersion(
        "flight-delay", 1, to_definition(pipeline), "0" * 64, 4, datetime(2026, 1, 1, tzinfo=UTC), "kim"
    )
    changed = {**first.definition, "description": "Late?", "features": {"hour": "hour(event_time)"}}
    return [replace(first, version=2, definition=changed), first]


@pytest.fixture
def run(monkeypatch):
    """Run the command against a registry that has two versions of the flights."""
    found = versions()
    pages = {
        "/v1/pipelines": {"pipelines": [pipeline_view(found[0], whole=False)]},
        "/v1/pipelines/flight-delay/catalog": catalog_view(found, [], Deployment("flight-delay")),
        "/v1/pipelines/flight-delay/versions/1/changes/2": changes_view(found[1], found[0]),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(pages[self.path], default=str).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("EVERLOOP_REGISTRY_URL", f"http://127.0.0.1:{server.server_port}")

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["catalog", *arguments])
        assert done.exit_code == 0, done.exception
        return done.stdout

    yield call
    server.shutdown()
    server.server_close()


def test_one_pipeline_shows_fields_readers_and_versions(run) -> None:
    """What does `wind` mean, who uses it, what has changed: without opening a file."""
    said = run("flight-delay")
    wind = next(line for line in said.splitlines() if line.startswith("wind "))
    assert "mph" in wind
    assert "0 … 200" in wind
    assert "origin (key)" in said
    assert "EWR, JFK, LGA" in said
    assert "ingest-record-accepted-v1.flight-delay" in said
    assert "feature, ingest, monitor, trainer" in said
    assert "description, features.hour" in said


def test_two_versions_are_compared_key_by_key(run) -> None:
    said = run("flight-delay", "--diff", "1", "2")
    line = next(line for line in said.splitlines() if line.startswith("description"))
    assert "arrive more than 15 minutes late" in line
    assert '"Late?"' in line
    assert "features.route" in said


def test_all_pipelines_in_a_line_each_and_as_json(run) -> None:
    (line,) = (line for line in run().splitlines() if line.startswith("flight-delay"))
    assert "operations" in line
    assert json.loads(run("flight-delay", "--json"))["label"]["name"] == "late"


def field(**figures) -> dict:
    return {"of": "observation", "null": 0.0, **figures}


PROFILES = [
    {
        "run_id": f"run-{number}",
        "model_version": number,
        "profiled_at": f"2026-01-0{number}T00:00:00+00:00",
        "observations": 100 * number,
        "fields": {
            "wind": field(null=0.1 * number, mean=10.0 + number, median=9.0, low=1.0, high=20.0 + number),
            "origin": field(shares={"EWR": 0.5 + 0.1 * number, "JFK": 0.2}, values=3),
            "late": field(true=0.25),
            **({"new": field(mean=1.5, median=1.0, low=0.0, high=2.0)} if number == 3 else {}),
        },
    }
    for number in (3, 2, 1)
]


def test_each_field_has_a_line_that_says_how_its_data_moved() -> None:
    """Drift is seen before it is alarmed about, and without a notebook."""
    rows = {row[0]: row[1:] for row in profile_rows(PROFILES, {"wind": "mph"})}
    assert rows["wind"] == ("▁▄█", "10.0% → 30.0%", "mean 11 → 13 mph", "1 … 21 → 1 … 23")
    assert rows["origin"] == ("▁▄█", "", "EWR 60.0% → 80.0%, JFK 20.0%", "3 values")
    assert rows["late"] == ("▁▁▁", "", "true 25.0%", "")
    assert rows["new"] == ("", "", "mean 1.5", "0 … 2")


def test_profiles_are_printed_with_their_trainings(capsys) -> None:
    print_profiles(PROFILES, {})
    said = capsys.readouterr().out
    assert "data of 3 trainings, model 1 (2026-01-01 00:00:00, 100 observations) → model 3" in said
    print_profiles([], {})
    assert "No training has described its data yet." in capsys.readouterr().out
