"""`everloop retract`: what is withdrawn, what is said, and that nothing happens twice."""

import json
import sys

import pytest
from everloop.cli import main
from everloop.client import Client
from everloop.history.retractions import LookUp, Retraction, Standing, ids_of

from tests.unit.client.answering import answering

PATH = "POST /v1/pipelines/sales/retractions"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everloop", "retract", "sales", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture
def log(monkeypatch):
    """What the log says; `asked` is what was looked up."""
    standing = Standing()
    standing.open = [Retraction("a1", "till", {"shop": "x"}), Retraction("a2", "web", {"shop": "y"})]
    asked: list = []

    def find(self, pipeline, ids=None, *, source=None, tell):
        asked.append((pipeline, ids, source))
        tell(1.0)
        return standing

    monkeypatch.setattr(Client, "find_observations", find)
    return standing, asked


@pytest.fixture
def ingest(monkeypatch):
    def taken(*ids: str) -> tuple[int, dict]:
        return 202, {"accepted": len(ids), "results": [{"status": "accepted", "id": one} for one in ids]}

    with answering({PATH: [taken("a1"), taken("a2")]}) as server:
        monkeypatch.setenv("EVERLOOP_INGEST_URL", server.url)
        yield server


def entry(kind: str, record_id: str, source: str = "till", **more) -> bytes:
    fields = {"shop": "x", "size": 1.0}
    return json.dumps({"kind": kind, "id": record_id, "source": source, "fields": fields, **more}).encode()


def test_each_observation_is_withdrawn_under_its_own_source(run, log, ingest) -> None:
    """Under another source, ingest would take a corrected record of the same id for a conflict."""
    code, out, _ = run("a1", "a2", "--reason", "broken till")
    assert code == 0
    assert "2 observations are retracted" in out
    assert log[1] == [("sales", ["a1", "a2"], None)]
    sent = [json.loads(body) for asked, body in ingest.seen if asked == PATH]
    assert sent == [
        {"shop": "x", "reason": "broken till", "id": "a1"},
        {"shop": "y", "reason": "broken till", "id": "a2"},
    ]


def test_a_dry_run_sends_nothing(run, log, ingest) -> None:
    log[0].missing = ["a9"]
    code, out, err = run("a1", "a2", "a9", "-r", "x", "--dry-run", "--json")
    found = json.loads(out)
    assert (code, found["dry_run"], found["retracted"]) == (1, True, 0)
    assert [one["id"] for one in found["observations"]] == ["a1", "a2"]
    assert found["missing"] == ["a9"]
    assert "no observation with 1 of the ids: a9" in err
    assert ingest.seen == []


def test_a_wrong_id_holds_the_others_back_unless_told_otherwise(run, log, ingest) -> None:
    """A file of the wrong pipeline must not retract the two ids that happen to fit."""
    log[0].missing = ["a9"]
    code, _, err = run("a1", "a9", "-r", "x")
    assert code == 1
    assert "Nothing was retracted." in err
    assert ingest.seen == []
    code, out, _ = run("a1", "a9", "-r", "x", "--keep-going", "--json")
    assert (code, json.loads(out)["retracted"]) == (0, 2)


def test_what_was_retracted_before_is_not_sent_again(run, log, ingest) -> None:
    standing, _ = log
    standing.open, standing.withdrawn = [], ["a1", "a2"]
    code, out, _ = run("--source", "till", "-r", "x")
    assert code == 0
    assert "2 were retracted before" in out
    assert ingest.seen == []


def test_a_refusal_is_told_and_fails(run, log, ingest) -> None:
    refused = {"status": "refused", "id": "a1", "row": 0, "reason": "allowed-values", "violations": []}
    taken = {"accepted": 1, "results": []}
    ingest.answers[PATH] = [(422, {"accepted": 0, "results": [refused]}), (202, taken)]
    code, out, err = run("a1", "a2", "-r", "x")
    assert code == 1
    assert "refused: a1: allowed-values" in out
    assert "1 retractions were refused" in err


def test_an_ingest_that_stops_half_way_is_told(run, log, ingest) -> None:
    """What was sent stays sent: running it again sends the rest."""
    busy = (503, {"title": "Not available", "detail": "the broker does not acknowledge"})
    ingest.answers[PATH] = [(202, {"accepted": 1, "results": []}), busy]
    code, _, err = run("a1", "a2", "-r", "x")
    assert code == 1
    assert "the broker does not acknowledge" in err


def test_a_command_without_ids_or_reason_says_what_is_missing(run, log, tmp_path) -> None:
    assert run("-r", "x")[0] == 2
    assert run("a1", "-r", " ")[0] == 2
    (tmp_path / "none.txt").write_text("\n")
    code, _, err = run("--from", "none.txt", "-r", "x")
    assert code == 2
    assert "names no id" in err


def test_ids_come_from_lines_and_tables(tmp_path) -> None:
    """What somebody has at hand: a list from grep, or an export."""
    (tmp_path / "ids.txt").write_text("a1\n\n a2 \na1\n")
    (tmp_path / "ids.csv").write_text("shop,id\nx,7\ny,8\n")
    (tmp_path / "ids.ndjson").write_text('{"id": "a1", "more": 1}\n')
    found = [ids_of(tmp_path / name) for name in ("ids.txt", "ids.csv", "ids.ndjson")]
    assert found == [["a1", "a2"], ["7", "8"], ["a1"]]


def test_the_log_says_what_stands_and_what_was_withdrawn() -> None:
    """Repeating a run must find nothing left; what was published again can be retracted again."""
    lookup = LookUp(["a", "b", "c", "d"], None, ["shop"])
    lookup.take([entry("observation", "a"), entry("observation", "b"), b"{}", None])
    lookup.take([entry("label", "b", retraction=True), entry("label", "d"), entry("observation", "z")])
    lookup.take([entry("observation", "c"), entry("label", "c", retraction=True)])
    lookup.take([entry("observation", "c"), entry("observation", "a", "web")])
    standing = lookup.standing()
    assert [(one.id, one.source, one.key) for one in standing.open] == [
        ("a", "till", {"shop": "x"}),
        ("a", "web", {"shop": "x"}),
        ("c", "till", {"shop": "x"}),
    ]
    assert (standing.withdrawn, standing.missing) == (["b"], ["d"])
    of_web = LookUp(None, "web", ["shop"])
    of_web.take([entry("observation", "a"), entry("observation", "b", "web")])
    assert [one.id for one in of_web.standing().open] == ["b"]
