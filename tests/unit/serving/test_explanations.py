"""Reasons are written in the words of the pipeline file."""

import pytest
from everloop_schemas.pipeline import load
from everloop_serving.domain.explanations import Wording

FILE = """
pipeline: pumps
partition_by: [site]
observation:
  event_time: at
  fields:
    site: {type: category}
    pressure: {type: number, unit: bar, description: the pressure}
    open: {type: boolean, nullable: true}
label: {type: TYPE, fields: {failed: {type: boolean}, cost: {type: number}}, value: {VALUE}}
features:
  pressure: pressure
  doubled: pressure * 2
  open: open
  site: site
"""


def wording(kind: str = "binary", value: str = "failure: failed") -> Wording:
    return Wording.of(load(FILE.replace("TYPE", kind).replace("VALUE", value)))


def test_the_largest_parts_come_first_with_value_and_unit() -> None:
    """Who reads a reason knows the field's name and unit, not the model's."""
    found = wording().explanation([31.5, 63.0, None, "north"], [0.25, -0.5, 0.75, 0.0, -1.0])
    assert found.reasons == [
        "open is missing: raises failure by 0.75",
        "doubled is 63: lowers failure by 0.5",
        "the pressure is 31.5 bar: raises failure by 0.25",
    ]
    assert (found.space, found.score, found.base_value) == ("log-odds", -0.5, -1.0)
    assert found.contributions == {"pressure": 0.25, "doubled": -0.5, "open": 0.75, "site": 0.0}
    assert found.vector == {"pressure": 31.5, "doubled": 63.0, "open": None, "site": "north"}


@pytest.mark.parametrize(("value", "shown"), [(True, "true"), ("north", "north"), (0.1 + 0.2, "0.3")])
def test_values_are_shown_as_people_write_them(value, shown) -> None:
    """0.30000000000000004 is no reason."""
    found = wording("number", "cost: cost").explanation([1.0, 2.0, value, "x"], [0.0, 0.0, 2.0, 0.0, 10.0])
    assert found.reasons == [f"open is {shown}: raises cost by 2"]
    assert (found.space, found.score) == ("value", 12.0)
