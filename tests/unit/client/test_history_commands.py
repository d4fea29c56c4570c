"""`everloop explain-vector` and `backfill`: what people read, and the exit code that a script reads."""

import dataclasses
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from everloop.cli import main
from everloop.client import Client
from everloop.history.backfill import Backfill
from everloop.history.vectors import ExplainedVector, LoggedValue
from everloop_features import Record
from everloop_features.explain import Explainer
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import load

PIPELINE = load("""
pipeline: sales
partition_by: [shop]
observation:
  event_time: at
  replay_sources: [history]
  fields: {shop: {type: category}, size: {type: number}}
label: {type: binary, fields: {gain: {type: number}}, value: {won: gain > 0}}
features: {double: size * 2, n: "count(window='1h', by=[shop])"}
""")
START = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everloop", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return ended.value.code, printed.out, printed.err

    return call


def observation(minute: int) -> Record:
    at = START + timedelta(minutes=minute)
    return Record("observation", f"o{minute}", at, at, {"shop": "x", "size": 1.5})


def vector(logged: list[float], missing_before: int | None = None) -> ExplainedVector:
    explainer = Explainer(PIPELINE, observation(9), newest=2)
    explainer.add([(minute, observation(minute)) for minute in range(9)])
    values = zip(logged, explainer.explain().values, strict=True)
    explained = tuple(LoggedValue(value, value == one.value, one) for value, one in values)
    return ExplainedVector("sales", 3, 0, 9, observation(9), explained, missing_before)


def test_a_vector_is_shown_with_the_records_that_made_it(run, monkeypatch) -> None:
    monkeypatch.setattr(Client, "explain_vector", lambda *_, **__: vector([3.0, 9.0]))
    code, out, _ = run("explain-vector", "sales", "o9")
    assert code == 0
    assert "equal bit for bit" in out
    assert "count(window='1h', by=[shop]) = 9.0, 9 records, the newest 2:" in out
    assert "offset 8 observation o8: 1.0" in out
    assert "size = 1.5" in out
    code, out, _ = run("explain-vector", "sales", "o9", "--json")
    found = json.loads(out)
    assert found["values"][1]["aggregates"][0]["newest"][1]["id"] == "o8"
    assert (found["equal"], found["observation"]["fields"]) == (True, {"shop": "x", "size": 1.5})


def test_a_vector_that_the_log_does_not_give_again_fails(run, monkeypatch) -> None:
    """A script that audits vectors must not need to read a tree."""
    monkeypatch.setattr(Client, "explain_vector", lambda *_, **__: vector([3.0, 8.0]))
    code, out, err = run("explain-vector", "sales", "o9")
    assert code == 1
    assert "the log gives 9.0" in out
    assert "does not give the logged vector again" in err
    monkeypatch.setattr(Client, "explain_vector", lambda *_, **__: vector([3.0, 8.0], missing_before=4))
    assert "below offset 4" in run("explain-vector", "sales", "o9")[2]


@pytest.fixture
def edge(monkeypatch, tmp_path):
    """An edge that refuses sizes below 0, and a broker that takes everything."""
    sent: list[bytes] = []

    def ask(kind, rows):
        violation = {"field": "size", "value": "-1", "rule": "min", "mend": "at least 0"}
        refused = {"status": "refused", "id": "b", "violations": [violation]}
        return [refused if json.loads(row)["size"] < 0 else {"status": "accepted", "id": "a"} for row in rows]

    async def publish(kafka, pipeline, source, records, *, progress, rate, tell) -> int:
        new = [record.value for record in records][progress.published :]
        sent.extend(new)
        progress.save(progress.published + len(new))
        return len(new)

    def begin(_, pipeline, files, *, source, folder) -> Backfill:
        return Backfill(KafkaSettings(), PIPELINE, files, source=source, ask=ask, folder=folder)

    async def has_records(_) -> bool:
        return False

    monkeypatch.setattr(Client, "backfill", begin)
    monkeypatch.setattr("everloop.history.backfill.publish_history", publish)
    monkeypatch.setattr("everloop.history.log.Log.has_records", has_records)
    (tmp_path / "good.csv").write_text(
        "id,at,shop,size\na,2020-01-01T00:00:00Z,x,1\nb,2020-01-02T00:00:00Z,x,2\n"
    )
    (tmp_path / "bad.csv").write_text(
        "id,at,shop,size\na,2020-01-01T00:00:00Z,x,1\nb,2020-01-02T00:00:00Z,x,-1\n"
    )
    return sent


def test_good_history_is_sent_and_a_rerun_adds_nothing(run, edge) -> None:
    code, out, _ = run("backfill", "sales", "--from", "good.csv")
    assert code == 0
    assert "2 observations and 0 labels" in out
    assert "2 records sent" in out
    code, out, _ = run("backfill", "sales", "--from", "good.csv")
    assert (code, len(edge)) == (0, 2)
    assert "2 of them were sent by an earlier run" in out


def test_a_dry_run_sends_nothing_and_prints_for_programs_too(run, edge) -> None:
    code, out, _ = run("backfill", "sales", "--from", "good.csv", "--dry-run", "--json")
    assert (code, edge) == (0, [])
    assert {key: json.loads(out)[key] for key in ("observations", "refused", "sent")} == {
        "observations": 2,
        "refused": 0,
        "sent": 0,
    }


def test_rows_that_break_the_contract_stop_it_before_anything_is_sent(run, edge) -> None:
    """Half a history in the log and half in quarantine is worse than none."""
    code, out, err = run("backfill", "sales", "--from", "bad.csv")
    assert (code, edge) == (1, [])
    assert "observation row 2: size is -1 (min); at least 0" in out
    assert "1 of 2 rows break the contract" in err
    code, _, _ = run("backfill", "sales", "--from", "bad.csv", "--keep-going")
    assert (code, len(edge)) == (0, 2)


def test_explained_values_are_plain_data() -> None:
    """`--json` must never meet an object that it cannot write."""
    explained = [dataclasses.asdict(one.explained) for one in vector([3.0, 9.0]).values]

    def as_text(value: object) -> str:
        assert isinstance(value, datetime), value
        return value.isoformat()

    assert [one["feature"] for one in json.loads(json.dumps(explained, default=as_text))] == [
        one["feature"] for one in explained
    ]
