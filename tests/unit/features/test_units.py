"""Units: what `apply` refuses because it does not add up, and what goes."""

import pytest
from everloop_features.units import combined, raised, read_unit, written
from unit.features.one_pipeline import compiled, problem_of

BY = "window='1h', by=[city]"


@pytest.mark.parametrize(
    "expression",
    [
        "distance + minutes",
        "distance - area",
        "distance > minutes",
        "1 < distance < minutes",
        "distance % minutes",
        "min(distance, detour, minutes)",
        "max(distance, 3, minutes)",
        "coalesce(distance, minutes)",
        "clip(distance, 0, minutes)",
        "distance if shared else minutes",
        "distance / minutes == minutes / distance",
        "distance + abs(-minutes)",
        "share + distance",
        "sqrt(area) + minutes",
        "distance ** 2 + distance",
        f"mean(distance, {BY}) - minutes",
        f"std(minutes, {BY}) + distance",
        f"sum(distance, {BY}) > quantile(minutes, 0.5, {BY})",
        f"ratio(distance, minutes, {BY}) + distance",
        f"mean(distance + minutes, {BY})",
        f"count({BY}, where=distance > minutes)",
        f"last(paid, {BY}, over=labels) + distance",
        "age(booked, unit='h') + minutes",
        "haversine(1, 2, 3, 4, unit='km') - distance",
        f"time_since({BY}, unit='h') - minutes",
    ],
)
def test_units_that_do_not_add_up(expression: str) -> None:
    """Miles plus minutes is a number, and a wrong one: nothing would ever say so."""
    problem = problem_of(expression)
    assert (problem.field, problem.rule) == ("features.x", "unit")
    assert "plain number" in problem.mend


@pytest.mark.parametrize(
    "expression",
    [
        "distance + detour - 3",
        "distance * 1.609 + minutes",
        "distance / minutes > speed",
        "speed * minutes + distance",
        "distance * detour == area",
        "sqrt(area) - distance",
        "distance / detour + plain",
        "distance > 5 and minutes > 5",
        "coalesce(distance, 0) + max(detour, 1)",
        "log1p(distance) + log1p(minutes)",
        "distance in [1, 2]",
        "haversine(1, 2, 3, 4, unit='mi') - distance",
        "age(booked, unit='min') - minutes",
        f"mean(distance, {BY}) / mean(minutes, {BY}) - speed",
        f"ratio(distance, minutes, {BY}) - speed",
        f"count(distance, {BY}) + count(minutes, {BY})",
        f"ewma(distance, {BY}, half_life='10m') - first(detour, {BY})",
        f"distinct(distance, {BY}) - minutes",
        f"time_since({BY}, unit='min') - minutes",
        "is_null(distance) or is_null(minutes)",
    ],
)
def test_units_that_go(expression: str) -> None:
    """A check that refuses what is right would be switched off."""
    compiled({"x": expression})


def test_a_problem_names_both_units() -> None:
    """Whoever mends it must see what was taken for what."""
    assert problem_of("distance / minutes + area").message == (
        "the two sides of add have the units 'mi/min' and 'mi^2'"
    )


def test_reading_and_writing_units() -> None:
    """`km/h` of one field is `km/h` computed from two others."""
    assert read_unit("km/h") == combined(read_unit("km"), read_unit("h"), -1)
    assert read_unit("m/s^2") == (("m", 1), ("s", -2))
    assert read_unit(" kWh ") == (("kWh", 1),)
    assert read_unit("%") == (("%", 1),)
    assert read_unit("1/h") == (("1/h", 1),)
    assert read_unit("") is read_unit(None) is read_unit("m/m") is None
    assert raised(read_unit("m^2"), 0.5) == read_unit("m")
    assert raised(read_unit("m"), 0.5) is None
    assert [written(read_unit(unit)) for unit in ("m/s^2", "s*kg", None)] == ["m/s^2", "kg*s", "1"]
