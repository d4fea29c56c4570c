"""What the command says when something is wrong: one message with a way out, and the right exit code."""

import json
import sys
from pathlib import Path

import pytest
from everloop.cli import main

GOOD = """\
pipeline: orders
team: shop
description: Will this order come back?
partition_by: [shop]
observation:
  event_time: ordered_at
  fields:
    shop: {type: category}
    price: {type: number, min: 0}
label:
  type: binary
  fields: {returned: {type: boolean}}
  value: {back: returned}
  expected_after: 8h
features:
  log_price: log1p(price)
  orders_1h: count(window='1h', by=[shop])
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("INGEST", "REGISTRY", "SERVING", "TRAINER", "MONITOR", "FEATURE"):
        monkeypatch.setenv(f"EVERLOOP_{name}_URL", "http://127.0.0.1:1")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["everloop", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture
def good(tmp_path: Path) -> str:
    (tmp_path / "orders.yaml").write_text(GOOD)
    return "orders.yaml"


def test_a_good_file_passes_without_any_service(run, good):
    """A pipeline must be checkable in a pull request, offline."""
    code, out, _ = run("check", good)
    assert code == 0
    assert "the pipeline orders is well formed and has 2 features" in out


def test_a_key_that_has_no_effect_yet_says_so(run, tmp_path):
    """Who asks for a search of parameters must not believe that one was made."""
    (tmp_path / "search.yaml").write_text(GOOD + "training: {search: {trials: 3}}\n")
    code, _, err = run("check", "search.yaml")
    assert code == 0
    assert "training.search is kept but not carried out yet" in err


def test_every_problem_of_a_broken_file_is_named_with_its_line(run, tmp_path):
    """Mending one error at a time, each with a new run, wastes an afternoon."""
    broken = GOOD.replace("type: number, min: 0", "type: numbr").replace("team: shop", "taem: shop")
    (tmp_path / "broken.yaml").write_text(broken)
    code, _, err = run("check", "broken.yaml")
    assert code == 1
    assert "broken.yaml:2: taem" in err
    assert "broken.yaml:9: observation.fields.price.type" in err


def test_a_broken_expression_is_found_offline_too(run, tmp_path):
    """An unknown field in a feature would otherwise show only when data comes."""
    (tmp_path / "broken.yaml").write_text(GOOD.replace("log1p(price)", "log1p(prize)"))
    code, _, err = run("check", "broken.yaml")
    assert code == 1
    assert "prize" in err
    assert "broken.yaml:16" in err


def test_a_broken_rule_over_fields_is_found_offline_too(run, tmp_path):
    """A rule that cannot be checked would otherwise show when the first record comes."""
    rules = "event_time: ordered_at\n  rules: [{name: dear, expr: prize > 3}]"
    (tmp_path / "broken.yaml").write_text(GOOD.replace("event_time: ordered_at", rules))
    code, _, err = run("check", "broken.yaml")
    assert code == 1
    assert "broken.yaml:" in err
    assert "observation.rules[0].expr: 'prize' is not known here [unknown-name]; did you mean" in " ".join(
        err.split()
    )


def test_explain_prints_defaults(run, good):
    """A default that nobody can see is a surprise in production."""
    code, out, _ = run("explain", good, "--json")
    explained = json.loads(out)
    assert code == 0
    assert explained["features"] == {"log_price": "number", "orders_1h": "number"}
    assert explained["definition"]["partitions"] == 4
    assert explained["definition"]["gates"]


def test_a_missing_file_is_named(run):
    """The usual typing mistake."""
    code, _, err = run("check", "nothing.yaml")
    assert code == 1
    assert "nothing.yaml cannot be read" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("apply", "orders.yaml"),
        ("models", "orders"),
        ("train", "orders"),
        ("trace", "a1"),
        ("rollback", "orders"),
    ],
)
def test_a_service_that_is_away_is_named_with_the_way_out(run, good, arguments):
    """ "Connection refused" alone does not say by whom, nor what to start."""
    code, _, err = run(*arguments)
    assert code == 1
    assert "does not answer at http://127.0.0.1:1" in err
    assert "`everloop up` starts it" in err


def test_an_unknown_service_is_wrong_usage(run):
    """A typo must not start a stack without that service."""
    code, _, err = run("up", "--services", "ingets")
    assert code == 2
    assert "There is no service ingets" in err


def test_an_unknown_command_is_wrong_usage(run):
    """Scripts tell 'wrong' from 'failed' by the exit code."""
    code, _, err = run("aply")
    assert code == 2
    assert "aply" in err


def test_a_bad_variable_is_named(run, monkeypatch):
    """A typo in the environment must be found by its name."""
    monkeypatch.setenv("EVERLOOP_STACK_KAFKA_PORT", "many")
    code, _, err = run("up")
    assert code == 2
    assert "EVERLOOP_STACK_KAFKA_PORT" in err


def test_an_unforeseen_error_is_one_line_and_a_file(run, monkeypatch, good):
    """A defect of ours must reach us with its details, and the user without them."""
    monkeypatch.setattr("everloop.cli.files.load", lambda *_: 1 / 0)
    code, _, err = run("check", good)
    assert code == 1
    assert "ZeroDivisionError: division by zero" in err
    details = Path(err.split("the details are in ")[1].strip())
    assert "Traceback" in details.read_text()
    details.unlink()


def test_a_token_is_shown_once_and_kept_as_a_hash(run, tmp_path):
    """A stolen tokens file must not open anything."""
    code, out, _ = run("token", "create", "loader", "--role", "producer", "--file", "tokens.jsonl")
    token = out.splitlines()[0]
    kept = (tmp_path / "tokens.jsonl").read_text()
    assert code == 0
    assert token.startswith("everloop_")
    assert token not in kept
    assert json.loads(kept)["roles"] == ["producer"]


def test_an_unknown_role_is_refused_with_the_known_ones(run):
    """A token that can do nothing is found out at the worst time."""
    code, _, err = run("token", "create", "x", "--role", "boss", "--file", "tokens.jsonl")
    assert code == 2
    assert "operator" in err


def test_records_that_are_no_json_are_named_by_line(run, tmp_path):
    """Line 3 of a million is what the user must find."""
    (tmp_path / "data.ndjson").write_text('{"id": "1"}\n{"id": "2"}\n{"id": \n')
    code, _, err = run("publish", "orders", "observations", "data.ndjson")
    assert code == 2
    assert "Line 3 is no JSON" in err


def test_status_without_a_stack_says_what_is_not_ready(run):
    """The first thing that people type."""
    code, out, err = run("status", "--json")
    found = json.loads(out)
    assert code == 1
    assert {one["ready"] for one in found["services"]} == {False}
    assert "`everloop up` starts what does not run" in err


@pytest.mark.parametrize("command", ["up", "status", "doctor", "apply", "dlq", "trace", "publish", "retract"])
def test_help_has_an_example(run, command):
    """Nobody reads a reference to type a first command."""
    code, out, _ = run(command, "--help")
    assert code == 0
    assert "Example: everloop" in out or command == "dlq"


TESTED = (
    GOOD
    + """\
tests:
  - name: the second order of an hour
    records:
      - {id: a, ordered_at: '2026-01-01T10:00:00Z', shop: x, price: 0}
      - {id: b, ordered_at: '2026-01-01T10:30:00Z', shop: x, price: 1}
    vectors:
      a: {log_price: 0, orders_1h: 0}
      b: {orders_1h: EXPECTED}
"""
)


def test_the_tests_of_a_file_run_without_any_service(run, tmp_path):
    """A feature must be testable in a pull request, offline."""
    (tmp_path / "orders.yaml").write_text(TESTED.replace("EXPECTED", "1"))
    code, out, _ = run("test", "orders.yaml")
    assert code == 0
    assert "passed the second order of an hour (3 values)" in out


def test_a_failed_test_of_a_file_names_feature_line_expected_and_got(run, tmp_path):
    """ "A test failed" alone sends people into a debugger."""
    (tmp_path / "orders.yaml").write_text(TESTED.replace("EXPECTED", "2"))
    code, out, err = run("test", "orders.yaml")
    assert code == 1
    assert "orders.yaml:25 b.orders_1h: expected 2, got 1.0 (off by 1)" in out
    assert "1 of 1 tests failed" in err
    code, out, _ = run("test", "orders.yaml", "--json")
    assert code == 1
    assert json.loads(out)["tests"][0]["differences"][0]["feature"] == "orders_1h"


def test_check_runs_the_tests_of_the_file_too(run, tmp_path):
    """Who checks a file in a pull request believes that all of it was checked."""
    (tmp_path / "orders.yaml").write_text(TESTED.replace("EXPECTED", "1"))
    code, out, _ = run("check", "orders.yaml")
    assert code == 0
    assert "has 2 features; its tests pass (1)." in out
    (tmp_path / "orders.yaml").write_text(TESTED.replace("EXPECTED", "2"))
    code, _, err = run("check", "orders.yaml")
    assert code == 1
    assert err.count("b.orders_1h: expected 2") == 1


def test_what_explain_prints_is_a_pipeline_file(run, good, tmp_path):
    """The file with its defaults filled in must be usable as the next version."""
    _, out, _ = run("explain", good)
    assert "# log_price: number" in out
    (tmp_path / "explained.yaml").write_text(out)
    assert run("check", "explained.yaml")[0] == 0


def test_an_empty_file_is_named(run, tmp_path):
    """ "0 accepted" with exit code 0 hides the export that failed."""
    (tmp_path / "empty.ndjson").write_text("\n")
    code, _, err = run("publish", "orders", "observations", "empty.ndjson")
    assert code == 1
    assert "empty.ndjson holds no record" in err
