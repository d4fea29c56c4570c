"""docs/reference/feature-language.md says what the code does."""

import re
from pathlib import Path

from everloop_features.functions import AGGREGATES, SCALARS

PAGE = (Path(__file__).parents[3] / "docs/reference/feature-language.md").read_text("utf-8")


def test_every_function_is_described() -> None:
    """A function that the reference does not name does not exist for a user, and one too many misleads."""
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `") and "(" in line]
    named = {name for row in rows for name in re.findall(r"`([a-z0-9_]+)\(", row)}
    assert named == {*SCALARS, *AGGREGATES}


def test_every_rule_is_listed() -> None:
    """Whoever searches for a problem's rule must find it."""
    source = Path(__file__).parents[3] / "shared/features/src/everloop_features"
    raised = {
        rule
        for path in source.glob("*.py")
        for rule in re.findall(r"ExpressionError\(\s*\"([a-z-]+)\"", path.read_text("utf-8"))
    }
    listed = set(re.findall(r"`([a-z-]+)`", PAGE.split("## Problems")[1]))
    assert raised <= listed
    assert len(raised) > 10
