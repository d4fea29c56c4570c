"""Rules over several fields are checked when the file is: with field, rule and mend."""

import pytest
from everloop_features import compile_rules
from everloop_schemas.pipeline import Pipeline, load, locate

TEXT = """\
pipeline: flights
partition_by: [origin]
observation:
  event_time: departed
  fields:
    origin: {type: category}
    arrived: {type: timestamp, nullable: true}
    seats: {type: integer}
  rules:
    - {name: in_order, expr: OBSERVED}
label:
  type: number
  fields: {delay: {type: number}}
  value: {late: delay}
  rules:
    - {name: sane, expr: LABELLED}
"""


def text(observed: str = "arrived >= departed", labelled: str = "delay < 5000") -> str:
    return TEXT.replace("OBSERVED", observed).replace("LABELLED", labelled)


def pipeline(**expressions: str) -> Pipeline:
    found = load(text(**expressions))
    assert isinstance(found, Pipeline), found
    return found


def test_rules_compile_and_hold() -> None:
    found = compile_rules(pipeline())
    assert not isinstance(found, list)
    assert found["observation"].uses == [["arrived", "departed"]]
    broken = found["observation"].broken
    assert broken({"arrived": "2026-01-01T00:00:00Z"}, 1) == []
    assert broken({"arrived": "1970-01-01T00:00:00Z"}, 1) == [0]
    assert broken({"arrived": None}, 1) == []
    assert found["label"].broken({"delay": 5000.0}, 1) == [0]


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ({"observed": "arived >= departed"}, (10, "observation.rules[0].expr", "unknown-name")),
        ({"observed": "seats + 1"}, (10, "observation.rules[0].expr", "type")),
        ({"observed": "seats >"}, (10, "observation.rules[0].expr", "syntax")),
        ({"observed": "arrived > seats"}, (10, "observation.rules[0].expr", "type")),
        ({"observed": "delay > 1"}, (10, "observation.rules[0].expr", "unknown-name")),
        (
            {"observed": "\"count(window='1h', by=[origin]) < 9\""},
            (10, "observation.rules[0].expr", "nested-aggregate"),
        ),
        ({"labelled": "seats > 1"}, (16, "label.rules[0].expr", "unknown-name")),
    ],
)
def test_a_broken_rule_is_named_with_its_line(
    expressions: dict[str, str], expected: tuple[int, str, str]
) -> None:
    """A rule that cannot be checked must not be found out by the first record."""
    found = compile_rules(pipeline(**expressions))
    assert isinstance(found, list)
    (problem,) = locate(found, text(**expressions), "flights.yaml")
    assert (problem.line, problem.field, problem.rule) == expected
    assert problem.mend


def test_rules_keep_their_order_whatever_their_names() -> None:
    rules = "".join(f"    - {{name: r{n}, expr: seats != {n}}}\n" for n in range(12))
    found = load(text().replace("    - {name: in_order, expr: arrived >= departed}\n", rules))
    assert isinstance(found, Pipeline), found
    compiled = compile_rules(found)
    assert not isinstance(compiled, list)
    assert [compiled["observation"].broken({"seats": n}, 0) for n in (0, 2, 10, 11)] == [[0], [2], [10], [11]]
