"""The `quality` section: what is refused says what to write."""

import pytest
from everloop_schemas.pipeline import Pipeline, load, to_definition

FILE = """
pipeline: pumps
partition_by: [site]
observation:
  event_time: at
  fields: {site: {type: category}, heat: {type: number, nullable: true}}
label:
  type: binary
  fields: {failed: {type: boolean}}
  value: {fails: failed}
"""


def test_a_file_without_the_section_keeps_its_digest() -> None:
    """A key that came later must not make a new version of every pipeline."""
    found = load(FILE)
    assert isinstance(found, Pipeline)
    assert "quality" not in to_definition(found)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{window: 5h}", "a week is no whole number of windows of 5:00:00"),
        ("{expect: [{expect: not_null}]}", "not_null needs field"),
        ("{expect: [{expect: not_null, field: heat, min: 1}]}", "not_null has no min"),
        ("{expect: [{expect: not_null, field: cold}]}", "there is no field 'cold'"),
        ("{expect: [{expect: between, field: heat}]}", "between needs min or max"),
        ("{expect: [{expect: between, field: site, min: 1}]}", "a category is not between numbers"),
        ("{expect: [{expect: between, field: heat, min: 3, max: 1}]}", "max 1 is below min 3"),
        ("{expect: [{expect: in_set, field: heat, values: [a]}]}", "a number is in no set of texts"),
        ("{expect: [{expect: row_count, min: -1}]}", "a row_count is never below zero"),
        ("{expect: [{expect: fresh, mostly: 0.9}]}", "fresh needs within"),
    ],
)
def test_every_problem_is_named(section: str, problem: str) -> None:
    """A gate that cannot hold must not look as if it held."""
    found = load(FILE + f"quality: {section}\n", "x.yaml")
    assert isinstance(found, list)
    assert [each.message for each in found] == [problem]
    assert all(each.line == 11 for each in found)
