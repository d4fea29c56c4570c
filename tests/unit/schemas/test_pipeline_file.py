"""The pipeline file: what a person wrote, and what we say about it."""

from datetime import timedelta

import pytest
from everloop_schemas import canonical
from everloop_schemas.durations import format_duration, parse_duration
from everloop_schemas.pipeline import Pipeline, Problem, from_definition, load, locate, to_definition

SMALL = """\
pipeline: churn
partition_by: [customer]
observation:
  event_time: at
  fields:
    customer: {type: category}
    note: {type: string}
    visits: {type: integer, min: 0}
label:
  type: binary
  fields: {left: {type: boolean}}
  value: {gone: left}
"""
FULL = (
    SMALL
    + """\
features:
  visits: log1p(visits)
  visits_7d: count(window='7d', by=[customer])
training:
  when: {new_labelled_rows: null, drift: false, max_age: 12h, cooldown: 90s}
  rows: {window: 1.5h}
  model: {family: lightgbm, trees: 10}
  search: {trials: 20, seconds: 60}
gates:
  - {metric: auc, at_least: 0.6}
  - {metric: log_loss, slice: customer, at_most_ratio: 1.3}
rollout: {mode: canary}
monitor: {slo: {latency_p95: 100ms, log_loss: 0.5}}
tests:
  - {name: one visit, records: [{id: a, at: 2013-01-01T00:00:00Z, note: null}], vector: {visits: null}}
"""
)


def read(text: str) -> Pipeline:
    pipeline = load(text, "churn.yaml")
    assert isinstance(pipeline, Pipeline), pipeline
    return pipeline


def problems(text: str) -> list[Problem]:
    found = load(text, "churn.yaml")
    assert isinstance(found, list)
    assert all(problem.file == "churn.yaml" and problem.message and problem.mend for problem in found)
    return found


def brief(text: str) -> list[tuple[int, str, str]]:
    return [(problem.line, problem.field, problem.rule) for problem in problems(text)]


def test_a_small_file_gets_defaults() -> None:
    """Twelve lines must be enough for a first model."""
    pipeline = read(SMALL)
    assert pipeline.features == {"customer": "customer", "visits": "visits"}
    assert [(gate.metric, gate.better_than) for gate in pipeline.gates] == [
        ("log_loss", "prior"),
        ("log_loss", "champion"),
    ]
    assert (pipeline.label.name, pipeline.label.expression) == ("gone", "left")
    assert (pipeline.partitions, pipeline.rollout.mode, pipeline.observation.max_future_skew) == (
        4,
        "direct",
        timedelta(minutes=5),
    )


def test_a_number_label_gets_a_gate_that_fits() -> None:
    pipeline = read(SMALL.replace("type: binary", "type: number"))
    assert {gate.metric for gate in pipeline.gates} == {"mae"}


@pytest.mark.parametrize("text", [SMALL, FULL])
def test_the_definition_round_trips(text: str) -> None:
    """What the registry publishes must be what each service reads, nulls among it."""
    pipeline = read(text)
    definition = to_definition(pipeline)
    assert from_definition(definition) == pipeline
    assert canonical.dumps(to_definition(from_definition(definition))) == canonical.dumps(definition)


def test_a_null_that_means_never_survives() -> None:
    assert from_definition(to_definition(read(FULL))).training.when.new_labelled_rows is None


def test_a_newer_definition_is_read() -> None:
    """A service that is rolled out later must not stop at a key that it does not know."""
    definition = to_definition(read(SMALL))
    definition["training"]["when"]["weekday"] = "monday"
    assert from_definition({**definition, "owner": "x"}) == read(SMALL)


def test_empty_sections_are_absent() -> None:
    """People comment out a section's lines and leave its name."""
    assert read(SMALL + "features:\n  # a: b\nmonitor:\n") == read(SMALL)


@pytest.mark.parametrize("word", ["no", "NO", "on", "yes", "y", "off"])
def test_yaml_1_1_booleans_are_text(word: str) -> None:
    """A list of countries with Norway in it must stay one."""
    pipeline = read(SMALL.replace("{type: category}", f"{{type: category, values: [{word}, {word}x]}}"))
    assert pipeline.observation.fields["customer"].values == [word, f"{word}x"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("pipeline: churn", "pipeline: Churn", [(1, "pipeline", "name")]),
        ("pipeline: churn\n", "", [(1, "pipeline", "required")]),
        ("partition_by: [customer]", "partition_by: [client]", [(2, "partition_by[0]", "unknown-field")]),
        ("partition_by: [customer]", "partition_by: []", [(2, "partition_by", "too-few")]),
        ("partition_by: [customer]", "partition_by: customer", [(2, "partition_by", "type")]),
        ("[customer]", "[customer, customer]", [(2, "partition_by[1]", "duplicate")]),
        ("event_time: at", "event_time: customer", [(6, "observation.fields.customer", "ambiguous-name")]),
        ("event_time: at", "event_time: known_at", [(4, "observation.event_time", "reserved-name")]),
        (
            "event_time: at",
            "event_time: at\n  max_future_skew: 5",
            [(5, "observation.max_future_skew", "duration")],
        ),
        (
            "event_time: at",
            "event_time: at\n  max_future_skew: 5 parsecs",
            [(5, "observation.max_future_skew", "duration")],
        ),
        ("visits: {", "class: {", [(8, "observation.fields.class", "reserved-name")]),
        ("visits: {", "visits per day: {", [(8, "observation.fields.visits per day", "name")]),
        ("type: integer", "type: int", [(8, "observation.fields.visits.type", "allowed-values")]),
        ("min: 0", "min: many", [(8, "observation.fields.visits.min", "type")]),
        ("min: 0", "min: 3, max: 2", [(8, "observation.fields.visits.max", "max")]),
        ("min: 0", "mim: 0", [(8, "observation.fields.visits.mim", "unknown-key")]),
        ("min: 0", "values: [a]", [(8, "observation.fields.visits.values", "not-for-type")]),
        (
            "{type: category}",
            "{type: category, min: 1}",
            [(6, "observation.fields.customer.min", "not-for-type")],
        ),
        (
            "{type: category}",
            "{type: category, values: [a, a]}",
            [(6, "observation.fields.customer.values[1]", "duplicate")],
        ),
        (
            "{type: category}",
            "{type: category, values: [1]}",
            [(6, "observation.fields.customer.values[0]", "type")],
        ),
        (
            "{type: category}",
            "{type: category, nullable: yes}",
            [(6, "observation.fields.customer.nullable", "type")],
        ),
        ("left: {", "visits: {", [(11, "label.fields.visits", "ambiguous-name")]),
        ("value: {gone: left}", "value: {visits: left}", [(12, "label.value.visits", "ambiguous-name")]),
        ("value: {gone: left}", "value: {a: left, b: left}", [(12, "label.value", "too-many")]),
        ("value: {gone: left}", "value: {gone: ''}", [(12, "label.value.gone", "required")]),
    ],
)
def test_problems_have_a_line_a_field_and_a_rule(
    old: str, new: str, expected: list[tuple[int, str, str]]
) -> None:
    """A person must find the mistake without reading our code."""
    assert old in SMALL
    assert brief(SMALL.replace(old, new, 1)) == expected


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("gates: []", ("gates", "too-few")),
        ("gates: [{metric: mae, better_than: prior}]", ("gates[0].metric", "allowed-values")),
        ("gates: [{metric: auc}]", ("gates[0]", "one-rule")),
        ("gates: [{metric: auc, at_least: 0.5, at_most: 0.6}]", ("gates[0]", "one-rule")),
        ("gates: [{metric: auc, at_least: 0.5, confidence: 0.9}]", ("gates[0].confidence", "goes-with")),
        ("gates: [{metric: auc, at_most_ratio: 1.5}]", ("gates[0]", "goes-with")),
        ("gates: [{metric: log_loss, slice: note, at_most_ratio: 1.5}]", ("gates[0].slice", "type")),
        ("gates: [{metric: auc, slice: nothing, at_most_ratio: 1.5}]", ("gates[0].slice", "unknown-field")),
        ("gates: [{metric: auc, better_than: yesterday}]", ("gates[0].better_than", "allowed-values")),
        ("training: {when: {cooldown: -1d}}", ("training.when.cooldown", "duration")),
        ("training: {when: {cooldown: 99999999w}}", ("training.when.cooldown", "duration")),
        ("training: {rows: {window: 0s}}", ("training.rows.window", "min")),
        ("training: {model: {trees: 0}}", ("training.model.trees", "min")),
        ("training: {model: {learning_rate: .inf}}", ("training.model.learning_rate", "type")),
        ("training: {model: {learning_rate: 1e999}}", ("training.model.learning_rate", "max")),
        ("training: {model: {tress: 1}}", ("training.model.tress", "unknown-key")),
        ("training: 5", ("training", "type")),
        ("partitions: 1.5", ("partitions", "type")),
        ("partitions: 2000", ("partitions", "max")),
        ("rollout: {mode: blue}", ("rollout.mode", "allowed-values")),
        ("monitor: {slo: {rmse: 1}}", ("monitor.slo.rmse", "allowed-values")),
        ("features: {a: 5}", ("features.a", "type")),
        ("features: {a:}", ("features.a", "type")),
        ("features: {window: visits}", ("features.window", "reserved-name")),
        ("tests: [{name: x, records: [{}], vector: {other: 1}}]", ("tests[0].vector.other", "unknown-field")),
        ("telemetry: {}", ("telemetry", "unknown-key")),
    ],
)
def test_problems_of_later_sections(section: str, expected: tuple[str, str]) -> None:
    assert brief(f"{SMALL}{section}\n") == [(13, *expected)]


@pytest.mark.parametrize(
    ("section", "mend"),
    [
        ("gates: [{metric: auc}]", "add one of: better_than, at_most_ratio, at_most, at_least"),
        ("gates: [{metric: auc, at_least: 0.5, at_most: 0.6}]", "keep one of: at_most, at_least"),
    ],
)
def test_a_gate_is_mended_by_what_it_lacks(section: str, mend: str) -> None:
    """ "Keep one" of rules that are not there is no advice."""
    assert [problem.mend for problem in problems(SMALL + section)] == [mend]


def test_a_slip_in_a_label_that_is_named_as_its_field_is_told_as_a_slip() -> None:
    """ "Rename it" about a typing mistake would send people away from the mistake."""
    text = SMALL.replace("value: {gone: left}", "value: {left: lft}")
    (problem,) = problems(text)
    assert (problem.field, problem.rule) == ("label.value.left", "unknown-name")
    assert problem.mend == "did you mean 'left'?"


def test_every_problem_is_told_at_once() -> None:
    """Mending a file one error at a time takes an afternoon."""
    text = (
        SMALL.replace("binary", "maybe").replace("integer", "int").replace("churn", "Churn") + "colour: red\n"
    )
    assert [line for line, _, _ in brief(text)] == [1, 8, 10, 13]


def test_a_slip_gets_a_suggestion() -> None:
    (problem,) = problems(SMALL + "rolout: {mode: direct}\n")
    assert "'rollout'" in problem.mend
    assert str(problem).startswith("churn.yaml:13: rolout: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1, "", "type")),
        ("just text", (1, "", "type")),
        ("a: [1", (1, "", "yaml-syntax")),
        ("a: 1\n\tb: 2", (2, "", "yaml-syntax")),
        ("a: 1\n---\nb: 2", (2, "", "yaml-syntax")),
        ("a: 1\nb: 2\na: 3", (3, "a", "duplicate-key")),
        ("a:\n  b: 1\n  b: 2", (3, "a.b", "duplicate-key")),
        ("a: &x {b: 1}\nc: *x", (2, "c", "alias")),
        ("a: &x\n  b: *x", (2, "a.b", "alias")),
        ("1: 2", (1, "", "key")),
        ("[a]: 2", (1, "", "key")),
        ("a: !!python/object:os.system {}", (1, "a", "tag")),
        ("a: !!binary aGk=", (1, "a", "tag")),
        ("[" * 20_000, (1, "", "yaml-syntax")),
        ("a: \x00", (1, "", "yaml-syntax")),
        ('a:\n  - "\\ud800"', (2, "a[0]", "text")),
        ('"\\udfff": 1', (1, "", "key")),
        ("a: " + "b" * 300_000, (1, "", "too-large")),
    ],
)
def test_yaml_that_is_not_what_it_seems(text: str, expected: tuple[int, str, str]) -> None:
    """The second of two equal keys would silently win; an alias bomb would fill the memory."""
    assert brief(text)[0] == expected


def test_later_problems_are_given_their_lines() -> None:
    """An expression is checked after reading; its mistake still has a line."""
    late = [Problem("", 0, "features.visits_7d", "expression", "no function 'cnt'", "write count")]
    assert [problem.line for problem in locate(late, FULL, "churn.yaml")] == [15]


def test_code_that_builds_a_broken_pipeline_is_told() -> None:
    definition = {**to_definition(read(SMALL)), "partition_by": ["client"]}
    with pytest.raises(ValueError, match="no field 'client'"):
        from_definition(definition)


@pytest.mark.parametrize(
    ("text", "span", "normal"),
    [
        ("30d", timedelta(days=30), "30d"),
        ("2w", timedelta(days=14), "14d"),
        ("36h", timedelta(hours=36), "36h"),
        ("1.5h", timedelta(minutes=90), "90m"),
        ("100ms", timedelta(milliseconds=100), "100ms"),
        ("0.001ms", timedelta(microseconds=1), "0.001ms"),
        ("0s", timedelta(0), "0s"),
    ],
)
def test_durations(text: str, span: timedelta, normal: str) -> None:
    assert parse_duration(text) == span
    assert format_duration(span) == normal
    assert parse_duration(normal) == span


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("{type: integer, pattern: '[0-9]'}", "observation.fields.visits.pattern:not-for-type"),
        ("{type: number, max_length: 3}", "observation.fields.visits.max_length:not-for-type"),
        ("{type: string, pattern: '(?=a)'}", "observation.fields.visits.pattern:pattern"),
        ("{type: string, pattern: '(a'}", "observation.fields.visits.pattern:pattern"),
        (
            "{type: string, pattern: '((a{1,900}){1,900})'}",
            "observation.fields.visits.pattern:pattern",
        ),
        ("{type: string, actions: {min: warn}}", "observation.fields.visits.actions.min:goes-with"),
        ("{type: string, actions: {type: warn}}", "observation.fields.visits.actions.type:not-for-type"),
        (
            "{type: string, actions: {colour: warn}}",
            "observation.fields.visits.actions.colour:allowed-values",
        ),
        ("{type: string, max_length: 2, actions: {max-length: drop}}", "actions.max-length:allowed-values"),
    ],
)
def test_what_a_field_may_ask_is_checked(field: str, expected: str) -> None:
    """A rule that could never hold, or never be broken, is a mistake of the file."""
    found = problems(SMALL.replace("{type: integer, min: 0}", field))
    assert [f"{each.field}:{each.rule}".endswith(expected) for each in found] == [True], found


def test_lateness_and_names_of_rules_are_checked() -> None:
    late = SMALL.replace("  event_time: at\n", "  event_time: at\n  when_late: apply\n")
    assert brief(late) == [(5, "observation.when_late", "goes-with")]
    rules = "  rules: [{name: r, expr: visits > 1}, {name: r, expr: visits > 2}]\n"
    twice = SMALL.replace("  event_time: at\n", "  event_time: at\n" + rules)
    assert brief(twice) == [(5, "observation.rules[1].name", "duplicate")]


def test_new_keys_change_no_old_definition() -> None:
    """A key added later must not make a new version of a pipeline that does not use it."""
    definition = to_definition(read(SMALL))
    assert set(definition["observation"]) == {
        "event_time",
        "fields",
        "replay_sources",
        "max_future_skew",
        "dedupe_records",
        "notify_every",
    }
    assert set(definition["observation"]["fields"]["note"]) == {"type", "nullable"}
    assert "rules" not in definition["label"]
