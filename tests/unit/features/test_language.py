"""What an expression means: each function, nulls, and numbers without a finite result."""

import math
from typing import Any

import pytest
from everloop_features import Compiled, microseconds
from everloop_features import compile as compile_features
from everloop_features.calculation import EPOCH
from everloop_schemas.pipeline import Pipeline, Problem

NEW_YEAR = 1_356_998_400_000_000  # 2013-01-01T00:00:00Z, a Tuesday


def pipeline(features: dict[str, str] | None = None, **changes: Any) -> Pipeline:
    definition: dict[str, Any] = {
        "pipeline": "parcels",
        "partition_by": ["depot"],
        "observation": {
            "event_time": "sent",
            "fields": {
                "depot": {"type": "category"},
                "courier": {"type": "category"},
                "note": {"type": "string", "nullable": True},
                "weight": {"type": "number", "nullable": True},
                "other": {"type": "number", "nullable": True},
                "pieces": {"type": "integer"},
                "fragile": {"type": "boolean", "nullable": True},
                "due": {"type": "timestamp"},
            },
        },
        "label": {
            "type": "binary",
            "fields": {"hours": {"type": "number"}, "damaged": {"type": "boolean", "nullable": True}},
            "value": {"late": "hours > 24"},
            "expected_after": "2d",
        },
        "features": features or {},
    }
    return Pipeline.model_validate({**definition, **changes})


def compiled(features: dict[str, str], **changes: Any) -> Compiled:
    result = compile_features(pipeline(features, **changes))
    assert isinstance(result, Compiled), [str(problem) for problem in result]
    return result


def problems(features: dict[str, str], **changes: Any) -> list[Problem]:
    result = compile_features(pipeline(features, **changes))
    assert isinstance(result, list)
    return result


def test_a_gate_cuts_rows_by_categories_alone() -> None:
    """A gate on a number's slices would have no evidence, and refuse every model for ever."""
    gates = [{"metric": "log_loss", "slice": "doubled", "at_most_ratio": 1.3}]
    (found,) = problems({"doubled": "weight * 2"}, gates=gates)
    assert (found.field, found.rule) == ("gates[0].slice", "type")
    assert "'doubled' is a number" in found.message


def value(expression: str, event_time_us: int = NEW_YEAR, **fields: Any) -> Any:
    features = compiled({"x": expression})
    return features.vector(fields, event_time_us, features.new_state(1))[0]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("weight + 2 * other", 11.0),
        ("weight - other", -1.0),
        ("weight / other", 0.75),
        ("weight // 2", 1.0),
        ("-weight % 2", 1.0),
        ("weight ** 2", 9.0),
        ("-weight", -3.0),
        ("+weight", 3.0),
        ("abs(-weight)", 3.0),
        ("min(weight, other, 2)", 2.0),
        ("max(weight, other, 2)", 4.0),
        ("floor(weight / 2)", 1.0),
        ("round(weight / 7)", 0.0),
        ("round(weight / 7, 2)", 0.43),
        ("log(weight)", math.log(3)),
        ("log1p(weight)", math.log1p(3)),
        ("exp(weight)", math.exp(3)),
        ("sqrt(other)", 2.0),
        ("pieces / 2", 2.5),
        ("weight < other", True),
        ("1 < weight <= 3 < other", True),
        ("1 < weight < 2", False),
        ("weight == 3 and other != 4", False),
        ("weight == 3 or other != 4", True),
        ("not fragile", False),
        ("1 if weight > 2 else 0", 1.0),
        ("courier if fragile else depot", "Blue"),
        ("concat(depot, '-', courier)", "North-Blue"),
        ("lower(courier)", "blue"),
        ("courier in ['Blue', 'Red']", True),
        ("courier not in ['Blue', 'Red']", False),
        ("pieces in [1, 5]", True),
        ("coalesce(note, courier)", "Blue"),
        ("is_null(note)", True),
        ("is_null(weight)", False),
        ("event_time < due", True),
        ("hour(due)", 6.0),
    ],
)
def test_expression(expression: str, expected: Any) -> None:
    """A feature must be what its expression says, to the last bit."""
    fields = {"depot": "North", "courier": "Blue", "note": None, "weight": 3.0, "other": 4, "pieces": 5}
    got = value(expression, **fields, fragile=True, due="2013-01-02T06:30:00Z")
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    "expression",
    [
        "weight + 1",
        "weight > 1",
        "-weight",
        "log(weight)",
        "min(weight, 1)",
        "1 if weight > 1 else 0",
        "weight in [1, 2]",
        "not (weight > 1)",
        "concat(note, 'x')",
        "weight > 1 and pieces == 5",
        "coalesce(weight, other)",
        "hour(due)",
        "count(window='1h', by=[depot])",
    ],
)
def test_null_operand_gives_null(expression: str) -> None:
    """A missing value must stay missing: a made-up 0 would train a wrong model without a sign."""
    assert value(expression, pieces=5) is None


def test_and_or_decide_without_the_null_side() -> None:
    """`is_null(x) or x > 3` must be usable on a missing x."""
    assert value("is_null(weight) or weight > 3") is True
    assert value("fragile and weight > 3", fragile=False) is False


@pytest.mark.parametrize(
    "expression",
    [
        "1 / (weight - 3)",
        "weight // (weight - 3)",
        "weight % (weight - 3)",
        "log(weight - 3)",
        "log1p(-weight)",
        "sqrt(-weight)",
        "exp(1000 * weight)",
        "1e308 * weight",
        "(0 - weight) ** 0.5",
        "10 ** (weight * 1000)",
        "0 ** (0 - weight)",
    ],
)
def test_no_finite_result_is_null(expression: str) -> None:
    """NaN or infinity in a vector cannot be written as JSON and would stop the stream."""
    assert value(expression, weight=3.0) is None


@pytest.mark.parametrize("wrong", ["3", True, [3], {}, float("nan"), float("inf"), 10**400])
def test_value_of_another_type_is_null(wrong: Any) -> None:
    """A pipeline that changes a field's type replays records with the old one: they must not stop it."""
    assert value("weight + 1", weight=wrong) is None
    assert value("hour(due)", due=wrong) is None


def test_calendar_in_utc_and_in_a_zone() -> None:
    """Midnight in UTC is the evening before in New York, also across a change of clocks."""
    assert [value(f"{part}(event_time)") for part in ("hour", "weekday", "month", "day_of_year")] == [
        0,
        1,
        1,
        1,
    ]
    parts = [
        value(f"{part}(sent, tz='America/New_York')") for part in ("hour", "weekday", "month", "day_of_year")
    ]
    assert parts == [19, 0, 12, 366]
    summer = NEW_YEAR + 200 * 86_400_000_000
    assert value("hour(event_time, tz='America/New_York')", summer) == 20.0


def test_label_value() -> None:
    """The label a model learns is a number; a label without the field it needs is none."""
    features = compiled({"x": "weight"})
    assert [features.label_value(fields) for fields in ({"hours": 25}, {"hours": 24.0}, {})] == [
        1.0,
        0.0,
        None,
    ]


def test_fields_are_features_by_default() -> None:
    """A first pipeline works without a line of the language."""
    features = compiled({})
    assert features.names == ("courier", "depot", "fragile", "other", "pieces", "weight")
    assert features.types == ("category", "category", "boolean", "number", "number", "number")
    assert not features.needs_state


def test_microseconds_are_exact() -> None:
    """A float in between would move an event into another pane."""
    moment = EPOCH.replace(year=2242, microsecond=999_999)
    assert EPOCH.replace(year=2242) < moment
    assert microseconds(moment) % 1_000_000 == 999_999


@pytest.mark.parametrize(
    ("expression", "rule", "said"),
    [
        ("wieght + 1", "unknown-name", "did you mean 'weight'?"),
        ("lgo(weight)", "unknown-function", "did you mean 'log'?"),
        ("weight +", "syntax", "correct the expression"),
        ("weight + courier", "type", "a number is needed"),
        ("weight if pieces else 0", "type", "a boolean is needed"),
        ("weight if fragile else courier", "type", "use one type"),
        ("courier < depot", "type", "compare it with == or in"),
        ("due", "type", "use hour(…)"),
        ("weight.real", "not-allowed", "see the reference"),
        ("[weight]", "not-allowed", "see the reference"),
        ("(lambda: 1)()", "not-allowed", "see the reference"),
        ("__import__('os')", "unknown-function", "use one of"),
        ("weight @ other", "not-allowed", "see the reference"),
        ("~weight", "not-allowed", "see the reference"),
        ("weight is 3", "not-allowed", "use == or is_null(x)"),
        ("None", "not-allowed", "see the reference"),
        ("1e999", "not-allowed", "see the reference"),
        ("log(weight, 2)", "arguments", "give it 1"),
        ("log(x=weight)", "arguments", "remove it"),
        ("min(weight)", "arguments", "give it 2 to any number"),
        ("min(*weight)", "arguments", "remove it"),
        ("round(weight, pieces)", "arguments", "write 0 to 15"),
        ("weight in other", "arguments", "write x in ['a', 'b']"),
        ("hour(event_time, tz='Mars/Base')", "time-zone", "use an IANA name such as 'America/New_York'"),
        (
            "hour(event_time, tz='../../etc/passwd')",
            "time-zone",
            "use an IANA name such as 'America/New_York'",
        ),
        ("count(by=[depot])", "window", "write window='1h' (s, m, h, d or w)"),
        ("count(window='1y', by=[depot])", "window", "write window='1h' (s, m, h, d or w)"),
        ("count(window='9999w', by=[depot])", "window", "use at most ten years"),
        ("count(window='1h')", "by", "write by=[field, …]"),
        ("count(window='1h', by=[deepot])", "by", "did you mean 'depot'?"),
        (
            "count(window='1h', by=[depot, weight])",
            "by",
            "group by fields of type category, string, integer or boolean",
        ),
        ("count(window='1h', by=[depot], over=labls)", "over", "write over=labels"),
        ("mean(window='1h', by=[depot])", "arguments", "write mean(x, window=…, by=…)"),
        ("mean(courier, window='1h', by=[depot])", "type", "a number or boolean is needed"),
        ("max(fragile, window='1h', by=[depot])", "type", "a number is needed"),
        ("last(due, window='1h', by=[depot])", "type", "a number, boolean or category is needed"),
        ("mean(late, window='1h', by=[depot])", "unknown-name", "use one of"),
        (
            "sum(count(window='1h', by=[depot]), window='1h', by=[depot])",
            "nested-aggregate",
            "use fields only here",
        ),
        ("count(window='1h', by=[courier])", "partition-key", "add ['depot'] to by, or set partitions: 1"),
        ("(" * 60 + "weight" + ")" * 60 + "+1" * 60, "too-complex", "stay below 40 levels"),
        ("-" * 1500 + "weight", "too-complex", "stay below 40 levels"),
        ("(" * 900 + "weight" + ")" * 900, "syntax", "correct the expression"),
        ("weight\x00", "syntax", "correct the expression"),
    ],
)
def test_problem_says_what_to_do(expression: str, rule: str, said: str) -> None:
    """A mistake in a pipeline file must be found before it runs, with its mend."""
    (problem,) = problems({"x": expression})
    assert (problem.field, problem.rule) == ("features.x", rule)
    assert said in problem.mend


def test_every_problem_is_found_at_once() -> None:
    """Mending one mistake only to be told of the next wastes a person's time."""
    found = problems(
        {"x": "nope", "y": "weight", "z": "weight + courier"},
        label={
            "type": "number",
            "fields": {"hours": {"type": "number"}},
            "value": {"late": "hours > 24"},
        },
    )
    assert [problem.field for problem in found] == ["label.value.late", "features.x", "features.z"]


def test_any_key_is_fine_on_one_partition() -> None:
    """A pipeline on one partition may aggregate over everything."""
    features = compiled(
        {"x": "count(window='1h', by=[])", "y": "count(window='1h', by=[courier])"}, partitions=1
    )
    state = features.new_state(1).begin()
    state.observe("a", {"courier": "Blue"}, NEW_YEAR, NEW_YEAR)
    assert features.vector({"courier": "Red"}, NEW_YEAR, state) == [1.0, 0.0]


def test_names_and_texts_never_become_code() -> None:
    """A pipeline file comes from outside: its texts must stay texts."""
    features = compiled(
        {"x": "concat(depot, '\\'); import os; (\\'')", "y": "last(courier, window='1h', by=[depot])"}
    )
    assert "import" not in features.functions.text
    assert "courier" not in features.functions.text


def test_the_order_of_a_mapping_means_nothing() -> None:
    """Definitions pass through stores that sort keys: vectors and state must not change places by that."""
    texts = {
        "b": "sum(weight, window='1h', by=[depot])",
        "a": "max(other, window='1h', by=[depot])",
        "c": "pieces",
    }
    one, other = compiled(texts), compiled(dict(reversed(texts.items())))
    assert one.names == other.names == ("a", "b", "c")
    overlays = [features.new_state(1).begin() for features in (one, other)]
    for overlay in overlays:
        overlay.observe("r", {"depot": "N", "weight": 2.0, "other": 3.0}, NEW_YEAR, NEW_YEAR)
    assert overlays[0].changes() == overlays[1].changes()
