"""The examples in the docstrings run."""

import doctest
import importlib

import pytest

MODULES = ["canonical", "durations", "ids", "partition", "pipeline", "problems", "strict_json", "topics"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    """An example that no longer runs teaches the wrong thing."""
    outcome = doctest.testmod(importlib.import_module(f"everloop_schemas.{name}"))
    assert outcome.attempted > 0
    assert outcome.failed == 0
