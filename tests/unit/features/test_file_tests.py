import pytest
from everloop_features import compile as compile_features
from everloop_features.file_tests import failures, run_tests
from everloop_schemas.pipeline import load

FILE = """
pipeline: p
partition_by: [origin]
observation:
  event_time: at
  fields: {{origin: {{type: category}}, distance: {{type: number, nullable: true}}}}
label:
  type: binary
  fields: {{delay: {{type: number}}}}
  value: {{late: delay > 15}}
features:
  far: distance > 100
  third: distance / 3
  route: concat(origin, '-x')
  seen_1h: count(window='1h', by=[origin])
  late_1d: mean(late, window='1d', by=[origin], over=labels)
tests:
  - name: the second flight of a late airport
    records:
      - {{id: a, at: '2013-01-01T05:00:00Z', origin: EWR, distance: 10}}
      - {{id: a, event_time: '2013-01-01T05:20:00Z', origin: EWR, delay: 30}}
      - {second}
    vector: {vector}
"""
SECOND = "{id: b, at: '2013-01-01T05:30:00Z', origin: EWR, distance: 1}"


def problems(vector: str, second: str = SECOND):
    pipeline = load(FILE.format(vector=vector, second=second), "p.yaml")
    assert not isinstance(pipeline, list), pipeline
    return failures(run_tests(pipeline, compile_features(pipeline)))


def run(vector: str, second: str = SECOND) -> list[tuple[str, str]]:
    return [(problem.field, problem.rule) for problem in problems(vector, second)]


def test_a_file_whose_tests_hold_has_no_problem() -> None:
    assert run("{far: false, third: 0.3333333333333333, route: EWR-x, seen_1h: 1, late_1d: 1}") == []


def test_each_feature_that_comes_out_otherwise_is_named() -> None:
    """A test that is not run is worse than none: people trust it."""
    assert run("{far: true, third: 0.34, seen_1h: 1, route: null}") == [
        ("tests[0].vector.far", "test"),
        ("tests[0].vector.third", "test"),
        ("tests[0].vector.route", "test"),
    ]


def test_a_difference_says_what_was_expected_and_what_came() -> None:
    """Without both values the next step is a debugger."""
    (problem,) = problems("{third: 0.34}")
    assert "b.third: expected 0.34, got 0.3333333333333333 (off by 0.00667)" in problem.message


def test_numbers_are_equal_to_the_last_bit_unless_a_tolerance_is_given() -> None:
    """A changed order of summation would pass unseen, and the stream and a rebuild would differ."""
    assert run("{third: 0.33333333333}") == [("tests[0].vector.third", "test")]
    assert run("{third: 0.33333333333}\n    tolerance: 1.0e-9") == []
    assert run("{third: 0.34}\n    tolerance: 0.001") == [("tests[0].vector.third", "test")]


def test_vectors_of_several_observations_are_compared_by_their_ids() -> None:
    vectors = "{}\n    vectors: {a: {seen_1h: 0, late_1d: null}, b: {seen_1h: 1, late_1d: 0}}"
    assert run(vectors) == [("tests[0].vectors.b.late_1d", "test")]


def test_a_vector_of_an_observation_that_is_not_there_is_named() -> None:
    """A mistyped id would otherwise compare nothing and pass."""
    assert run("{}\n    vectors: {c: {seen_1h: 0}}") == [("tests[0].vectors.c", "test-record")]


@pytest.mark.parametrize("vector", ["{}", "{fra: true}", "{}\n    vectors: {a: {fra: true}}"])
def test_a_test_that_expects_nothing_that_exists_is_refused(vector) -> None:
    assert isinstance(load(FILE.format(vector=vector, second=SECOND), "p.yaml"), list)


def test_a_number_is_no_truth_value() -> None:
    assert run("{far: 0}") == [("tests[0].vector.far", "test")]


def test_what_is_left_out_is_null() -> None:
    assert run("{third: null}", SECOND.replace(", distance: 1", "")) == []


@pytest.mark.parametrize(
    ("second", "field"),
    [
        (SECOND.replace("distance", "distanse"), "tests[0].records[2].distanse"),
        (SECOND.replace("2013-01-01T05:30:00Z", "yesterday"), "tests[0].records[2].at"),
        (SECOND.replace("05:30:00Z", "05:30:00"), "tests[0].records[2].at"),
        ("{id: b, origin: EWR, delay: 3}", "tests[0].records[2].event_time"),
    ],
)
def test_a_record_that_nobody_could_send_is_named(second, field) -> None:
    assert run("{third: null}", second) == [(field, "test-record")]
