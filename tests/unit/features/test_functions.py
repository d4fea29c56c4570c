"""Functions of texts, of time, of places and of cycles, and what each refuses."""

import math
from typing import Any

import pytest
from unit.features.one_pipeline import NOON, compiled, problem_of, value

DAY = 86_400_000_000
FIELDS = {"city": "Köln ", "driver": "ab-cd-ab", "plain": -2.5, "distance": 3.0, "shared": True}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("pow(distance, 2)", 9.0),
        ("pow(plain, 0.5)", None),
        ("sign(plain)", -1.0),
        ("sign(plain - plain)", 0.0),
        ("ceil(plain)", -2.0),
        ("log2(8)", 3.0),
        ("log10(1000)", 3.0),
        ("log2(plain)", None),
        ("sin(plain)", math.sin(-2.5)),
        ("cos(plain)", math.cos(-2.5)),
        ("tan(plain)", math.tan(-2.5)),
        ("tanh(plain)", math.tanh(-2.5)),
        ("clip(plain, -1, 1)", -1.0),
        ("clip(-plain, -1, 1)", 1.0),
        ("clip(distance, 0, 10)", 3.0),
        ("plain in [-2.5, 4]", True),
        ("upper(city)", "KÖLN "),
        ("strip(city)", "Köln"),
        ("length(city)", 5.0),
        ("startswith(driver, 'ab')", True),
        ("endswith(driver, 'cd')", False),
        ("contains(driver, 'cd')", True),
        ("left(driver, 3)", "ab-"),
        ("right(driver, 3)", "-ab"),
        ("right(driver, 100)", "ab-cd-ab"),
        ("replace(driver, 'ab', '')", "-cd-"),
        ("bucket(plain, [-2.5, 0, 10.5])", "-2.5..0"),
        ("bucket(plain - 1, [-2.5, 0, 10.5])", "<-2.5"),
        ("bucket(distance * 10, [-2.5, 0, 10.5])", ">=10.5"),
        ("haversine(0, 0, 0, 180)", 6_371.0088 * math.pi),
        ("round(haversine(50.9413, 6.9583, 52.52, 13.405, unit='mi'))", 297.0),
        ("haversine(91, 0, 0, 0)", None),
    ],
)
def test_function(expression: str, expected: Any) -> None:
    """A feature must be what its expression says."""
    got = value(expression, **FIELDS)
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("minute(event_time)", 0.0),
        ("minute(event_time, tz='Asia/Kolkata')", 30.0),
        ("hour(event_time, tz='Asia/Kolkata')", 17.0),
        ("weekday(event_time, tz='Pacific/Auckland')", 5.0),
        ("is_weekend(event_time)", False),
        ("is_weekend(event_time, tz='Pacific/Auckland')", True),
        ("is_holiday(event_time, 'DE')", False),
        ("age(booked)", 5_400.0),
        ("age(booked, unit='h')", 1.5),
        ("age(event_time, booked, unit='d')", -0.0625),
        ("sin_of(hour(event_time), 24)", math.sin(math.pi)),
        ("cos_of(hour(event_time), 24)", -1.0),
    ],
)
def test_time(expression: str, expected: Any) -> None:
    """Calendars and clocks are right in every zone."""
    assert value(expression, booked="2014-06-20T12:30:00+02:00") == expected


def test_holidays_by_country_part_and_zone() -> None:
    """A holiday begins at midnight where the pipeline lives, not at midnight in UTC."""
    fourth = NOON + 14 * DAY
    assert value("is_holiday(event_time, 'US')", fourth)
    assert not value("is_holiday(event_time, 'DE')", fourth)
    late_evening = fourth + 15 * 3_600_000_000  # 03:00 on the 5th in UTC
    assert not value("is_holiday(event_time, 'US')", late_evening)
    assert value("is_holiday(event_time, 'US', tz='America/New_York')", late_evening)
    corpus_christi = NOON - DAY
    assert value("is_holiday(event_time, 'DE-BY')", corpus_christi)
    assert not value("is_holiday(event_time, 'DE-BE')", corpus_christi)


def test_clocks_that_change_within_a_quarter_of_an_hour() -> None:
    """Offsets are looked up by the quarter of an hour: a change inside one must not be missed."""
    change = 63_593_070_000_000  # 1972-01-07T00:44:30Z: Liberia gives up an offset of -0:44:30
    minutes = [value("minute(event_time, tz='Africa/Monrovia')", change + us) for us in (-1, 0)]
    assert minutes == [59.0, 44.0]


def test_a_year_without_calendar_is_null() -> None:
    """A broken clock must not stop the stream."""
    far = 10**18
    assert value("month(event_time)", far) is None
    assert value("hour(event_time, tz='Asia/Kolkata')", far) is None
    assert value("is_holiday(event_time, 'US')", -(10**17) // 2) is False


def test_hash_buckets_are_the_same_everywhere() -> None:
    """Another host or version that put a value into another bucket would make the model wrong in silence."""
    assert value("hash_bucket(driver, 1000)", driver="ab-cd-ab") == "543"
    assert value("hash_bucket(plain, 1000)", plain=2.5) == "161"
    assert value("hash_bucket(plain, 1000)", plain=-0.0) == value("hash_bucket(plain, 1000)", plain=0.0)
    assert value("hash_bucket(shared, 1000)", shared=True) == "794"
    spread = {value("hash_bucket(driver, 8)", driver=f"d{number}") for number in range(200)}
    assert spread == {str(number) for number in range(8)}


def test_replace_cannot_fill_the_memory() -> None:
    """Nested replacements multiply: a pipeline file of a few lines must not stop a service."""
    grown = "driver"
    for _ in range(8):
        grown = f"replace({grown}, 'a', 'aaaaaaaaaaaaaaaa')"
    assert value(grown, driver="a" * 100) is None
    assert value("replace(driver, 'a', 'bb')", driver="aa") == "bbbb"


def test_every_function_of_one_null_is_null() -> None:
    """A missing value must stay missing."""
    for expression in (
        "upper(driver)",
        "length(driver)",
        "hash_bucket(driver, 5)",
        "bucket(plain, [0])",
        "clip(plain, 0, 1)",
        "haversine(plain, 0, 0, 0)",
        "age(booked)",
        "is_holiday(booked, 'US')",
        "sin_of(plain, 7)",
        "replace(driver, 'a', 'b')",
    ):
        assert value(expression) is None, expression


@pytest.mark.parametrize(
    ("expression", "rule", "mend"),
    [
        ("is_holiday(event_time, 'XX')", "country", "ISO 3166"),
        ("is_holiday(event_time, 'US-QQ')", "country", "ISO 3166"),
        ("is_holiday(event_time, driver)", "country", "ISO 3166"),
        ("is_holiday(event_time, '../x')", "country", "ISO 3166"),
        ("is_holiday(event_time)", "arguments", "give it 2"),
        ("bucket(plain, [3, 1])", "arguments", "write bucket(x, [0, 10, 100])"),
        ("bucket(plain, [])", "arguments", "write bucket(x, [0, 10, 100])"),
        ("bucket(plain, [distance])", "arguments", "write bucket(x, [0, 10, 100])"),
        ("hash_bucket(driver, 0)", "arguments", "write 2 to"),
        ("hash_bucket(booked, 7)", "type", "use a category, a number or a boolean"),
        ("left(driver, 0)", "arguments", "write 1 to 1000"),
        ("left(driver, plain)", "arguments", "write 1 to 1000"),
        ("replace(driver, '', 'x')", "arguments", "write replace(x, 'old', 'new')"),
        ("sin_of(plain, 0)", "arguments", "write 24"),
        ("sin_of(plain)", "arguments", "give it 2"),
        ("age(booked, unit='w')", "arguments", "use one of ['s', 'min', 'h', 'd']"),
        ("age(booked, tz='UTC')", "arguments", "remove it"),
        ("haversine(1, 2, 3)", "arguments", "give it 4"),
        ("haversine(1, 2, 3, 4, unit='ft')", "arguments", "use one of ['km', 'm', 'mi', 'nmi']"),
        ("upper(plain)", "type", "a category is needed"),
        ("clip(plain, 0)", "arguments", "give it 3"),
        ("booked", "type", "age(…)"),
    ],
)
def test_problem_says_what_to_do(expression: str, rule: str, mend: str) -> None:
    """A mistake in a pipeline file must be found before it runs, with its mend."""
    problem = problem_of(expression)
    assert (problem.field, problem.rule) == ("features.x", rule)
    assert mend in problem.mend


def test_types_of_features() -> None:
    """The trainer encodes by type: a bucket is a category, an age a number."""
    features = compiled({"a": "age(booked)", "b": "bucket(plain, [0])", "c": "is_weekend(event_time)"})
    assert features.types == ("number", "category", "boolean")
