"""What somebody new meets: waiting for a first model, and asking for what is not there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from everloop.cli import main
from everloop.recent import summary
from everloop.stack.folder import DataFolder
from everloop_schemas.events import DataArrived
from unit.client.answering import answering

PIPELINE, TRAINING, MODELS = (
    "GET /v1/pipelines/p",
    "GET /v1/pipelines/p/training",
    "GET /v1/pipelines/p/models",
)
READY, INFER, RUNS = "GET /v2/models/p/ready", "POST /v2/models/p/infer", "GET /v1/runs?pipeline=p"
WAITING = {"active": False, "waiting_for": "700 of 2000 new labelled rows"}
ACTIVE = {"active": True, "waiting_for": "a run is active"}
MADE = {
    "model_version": 1,
    "stage": "champion",
    "trigger": "new-data",
    "trained_at": None,
    "metrics": {},
    "gates": [],
}
ANSWER = {"id": "a", "model_version": "1", "outputs": [{"name": "probability", "data": [0.25]}]}
NONE = (404, {"error": "no model of 'p' is deployed"})

SMALL = """\
pipeline: churn
partition_by: [customer]
observation:
  event_time: at
  fields:
    customer: {type: category}
label:
  type: binary
  fields: {left: {type: boolean}}
  value: {gone: left}
"""


@pytest.fixture
def server():
    known = {PIPELINE: (200, {"pipeline": "p"}), MODELS: (200, {"models": []}), RUNS: (200, [])}
    with answering(known) as server:
        yield server


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, server):
    monkeypatch.chdir(tmp_path)
    for name in ("INGEST", "REGISTRY", "SERVING", "TRAINER", "MONITOR", "FEATURE"):
        monkeypatch.setenv(f"EVERLOOP_{name}_URL", server.url)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everloop", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return ended.value.code, printed.out, printed.err

    return call


def test_predict_waits_for_the_first_model_and_tells_each_step(run, server):
    """The README, typed straight through, must end with a prediction."""
    server.answers |= {
        READY: [NONE, NONE, NONE, (503, {"error": "loading"}), (200, {"ready": True})],
        TRAINING: [(200, WAITING), (200, ACTIVE), (200, ACTIVE), (200, WAITING)],
        MODELS: (200, {"models": []}),
        INFER: (200, ANSWER),
    }
    code, out, err = run("predict", "p", "-d", "{}", "--wait")
    assert code == 0
    assert out.startswith("0.25 by model version 1")
    assert err.splitlines() == [
        "waiting: 700 of 2000 new labelled rows",
        "waiting: a run is under way",
        "waiting: 700 of 2000 new labelled rows",
    ]


def test_waiting_ends_with_where_the_pipeline_stands(run, server):
    """A script must not hang, and its log must say what was missing."""
    server.answers |= {READY: NONE, TRAINING: (200, WAITING)}
    code, _, err = run("models", "p", "--wait", "--timeout", "1")
    assert code == 1
    assert "No model of p answers after 1 s: 700 of 2000 new labelled rows" in err


def test_waiting_for_a_pipeline_that_is_not_there_ends_at_once(run, server):
    """A typing mistake must not cost five minutes."""
    del server.answers[PIPELINE]
    server.answers |= {READY: NONE}
    code, _, err = run("predict", "p", "-d", "{}", "--wait")
    assert code == 1
    assert "registry refuses (404)" in err


@pytest.mark.parametrize(
    ("training", "said"),
    [(WAITING, "700 of 2000 new labelled rows"), (ACTIVE, "a run is under way")],
)
def test_no_model_says_why(run, server, training, said):
    """404 alone does not tell a first run under way from a pipeline that nobody applied."""
    server.answers |= {READY: NONE, INFER: NONE, TRAINING: (200, training), RUNS: (200, [])}
    code, _, err = run("predict", "p", "-d", "{}")
    assert code == 1
    assert f"p has no model that answers yet: {said}." in err
    assert f"No model yet: {said}." in run("models", "p")[1]
    assert f"No run yet: {said}." in run("runs", "p")[1]


def test_a_first_run_that_failed_is_told(run, server):
    """Who waits for a model must hear that none will come of it."""
    failed = {"state": "failed", "failed": {"reason": "300 labelled rows, 500 needed"}}
    server.answers |= {TRAINING: (200, WAITING), RUNS: (200, [failed])}
    assert "2000 new labelled rows; the last run failed: 300 labelled rows, 500" in run("models", "p")[1]


def test_a_failed_run_says_why(run, server):
    """ "failed" alone sends people into the trainer's log for a sentence that the platform has."""
    trigger = {"kind": "manual", "reason": "asked"}
    one = {"run_id": "r1", "state": "failed", "trigger": trigger, "model_version": None, "verdict": None}
    failed = {"reason": "segment x cannot be read", "mend": "Restore the trainer's data directory"}
    server.answers |= {RUNS: (200, [{**one, "failed": failed}])}
    told = run("runs", "p")[1]
    assert "r1 failed: segment x cannot be read. Restore the trainer's data directory." in told


def test_a_model_that_is_being_judged_is_told(run, server):
    """Between a run's end and its verdict nothing is missing: it is a moment's wait."""
    server.answers |= {TRAINING: (200, WAITING), RUNS: (200, [{"state": "trained", "failed": None}])}
    assert "a run has ended, and its model is being judged" in run("models", "p")[1]


def test_runs_of_an_unknown_pipeline_are_refused(run, server):
    """ "No run yet." about a typing mistake sends people looking for a fault in the trainer."""
    del server.answers[PIPELINE]
    server.answers |= {RUNS: (200, [])}
    assert run("runs", "p")[0] == 1


def test_data_that_is_no_json_is_named_as_what_it_is(run):
    """A quoting mistake of the shell is no file with lines."""
    code, _, err = run("predict", "p", "-d", "{not json")
    assert code == 2
    assert "--data is no JSON" in err
    assert "Write for example" in err
    code, _, err = run("predict", "p", "-d", json.dumps([1]))
    assert code == 2
    assert "no JSON object" in err


def test_a_refused_record_is_told_once_and_counted_from_one(run, server, tmp_path):
    """People count a file's records from 1, and read a rule's name once."""
    wrong = {
        "field": "known_at",
        "value": "2026-01-01T00:00:00Z",
        "rule": "known-at-not-allowed",
        "mend": "leave it out",
    }
    result = {"status": "refused", "row": 0, "reason": "known-at-not-allowed", "violations": [wrong]}
    refused = {"accepted": 0, "refused": 1, "results": [result]}
    server.answers["POST /v1/pipelines/p/observations"] = (422, refused)
    (tmp_path / "one.json").write_text('{"id": "a"}')
    code, out, _ = run("publish", "p", "observations", "one.json")
    assert code == 1
    assert "record 1: known_at 2026-01-01T00:00:00Z (known-at-not-allowed): leave it out" in out
    assert out.count("known-at-not-allowed") == 1
    assert "--source" in out


def test_a_problem_of_a_file_is_told_once(run, server, tmp_path):
    """The same sentence twice makes people look for the difference."""
    problem = {
        "file": "p.yaml",
        "line": 3,
        "field": "tests[0]",
        "rule": "test",
        "message": "it fails",
        "mend": "mend it",
    }
    body = {
        "title": "Broken pipeline file",
        "detail": "One problem; the first: it fails",
        "problems": [problem],
    }
    server.answers["PUT /v1/pipelines/churn"] = (422, body)
    (tmp_path / "p.yaml").write_text(SMALL)
    code, _, err = run("apply", "p.yaml")
    assert code == 1
    assert err.count("it fails") == 1


def test_a_prediction_whose_observation_was_never_sent_has_a_trace(run, server):
    """Predictions need no observation: that is no failure, and nothing to read twice."""
    model = {
        "model_version": 1,
        "pipeline_version": 1,
        "stage": "champion",
        "artifact": {"sha256": "a", "bytes": 1},
        "metrics": {},
        "run_id": "r",
        "trigger": {"kind": "new-data"},
        "dataset": {"sha256": "d", "rows": 7, "cut": {"10": 3, "2": 5}},
        "gates": [],
        "decision": {"state": "approved", "by": "policy", "at": "now", "reason": "gates"},
        "decisions": [],
        "loads": [],
    }
    run_of = dict.fromkeys(("run_id", "state", "cut", "pipeline_time", "attempts", "parameters"))
    prediction = {"id": "x", "pipeline": "p", "model_version": 1, "pipeline_version": 1, "output": 0.5}
    server.answers |= {
        "GET /v1/predictions/x": (200, {"predictions": [prediction]}),
        "GET /v1/pipelines/p/models/1": (200, model),
        "GET /v1/runs/r": (200, run_of),
    }
    code, out, _ = run("trace", "x")
    assert code == 0
    assert "its observation was not published" in out
    assert "refuses" not in out
    assert "cut: partition 2 before offset 5, partition 10 before offset 3" in out


def test_another_program_on_a_port_is_named_as_one(run, server):
    """A page of HTML in the terminal does not say that the port is taken by something else."""
    server.answers["GET /health/ready"] = (200, "<html>It works!</html>")
    code, out, err = run("status", "--json")
    assert code == 1
    assert "html" not in out + err
    assert {one["reason"] for one in json.loads(out)["services"]} == {
        "what answers there is no service of Everloop: its answer is no JSON"
    }


def test_a_start_that_is_under_way_is_told_as_one(run, server, tmp_path):
    """ "Start it" about what is being started makes people start it twice."""
    server.answers["GET /health/ready"] = (503, {"status": "not-ready"})
    folder = DataFolder(tmp_path / ".everloop")
    folder.hold()
    code, out, err = run("status")
    assert code == 1
    assert "being started" in out
    assert "The registry, which knows them, is not ready." in out
    assert "They are being started" in err
    folder.release()
    code, out, err = run("status")
    assert "not started from this data folder" in out
    assert "`everloop up` starts what does not run" in err


def test_totals_of_a_partition_are_told_as_totals():
    """Two partitions' totals in turn look like numbers that jump."""
    arrived = {"id": "e", "pipeline": "p", "partition": 2, "observations": 3000, "labels": 900}
    event = DataArrived(**arrived, known_at="2026-01-01T00:00:00Z")
    assert summary(event) == "partition 2 holds 3000 observations and 900 labels in total"
    blocked = DataArrived(
        **arrived, known_at="2026-01-01T00:00:00Z", blocked=True, blocked_reason="heat:null"
    )
    assert summary(blocked).endswith("in total, blocked: heat:null")


def test_the_demo_has_help_under_its_own_name():
    """`everloop demo -h` must not answer as a program that nobody can start."""
    example = Path(__file__).parents[3] / "examples" / "flights"
    ran = subprocess.run([sys.executable, str(example), "-h"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
    assert "Usage: everloop demo [OPTIONS]" in ran.stdout
