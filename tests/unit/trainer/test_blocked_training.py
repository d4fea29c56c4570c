"""Broken data gates and the policy: nothing starts by itself, a person may."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from everloop_trainer.domain.policy import (
    Arrival,
    DriftSignal,
    LastRun,
    ManualRequest,
    Policy,
    Situation,
    decide,
)

POLICY = Policy(
    new_labelled_rows=100, drift=True, max_age=timedelta(days=30), cooldown=timedelta(0), minimum_rows=10
)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DUE = Situation(
    pipeline_version=1,
    labels=500,
    pipeline_time=NOW,
    last=LastRun(1, 0, NOW - timedelta(days=60)),
    arrival=Arrival("a"),
    drift=DriftSignal("d", "feature", 1),
)


def test_neither_new_data_nor_drift_nor_age_starts_a_run_on_broken_data() -> None:
    """All three are due, and the data is bad: the next model would learn the fault."""
    assert decide(POLICY, DUE).trigger is not None
    blocked = decide(POLICY, replace(DUE, blocked="heat:null is 0.4"))
    assert blocked.trigger is None
    assert blocked.why == "blocked by the quality of the data: heat:null is 0.4"


def test_nothing_starts_by_itself_ahead_of_the_judgement() -> None:
    """The trainer may have consumed what ingest's gates have yet to look at."""
    ahead = decide(POLICY, replace(DUE, unjudged=True))
    assert ahead.trigger is None
    assert "ingest has yet to judge and announce them" in ahead.why
    asked = replace(DUE, unjudged=True, manual=ManualRequest("m", "try"))
    assert decide(POLICY, asked).trigger is not None


def test_a_person_and_a_changed_pipeline_are_not_held_back() -> None:
    """Who asks for a run has looked, and a changed file may be the mend."""
    asked = replace(DUE, blocked="x", manual=ManualRequest("m", "try"))
    assert decide(POLICY, asked).trigger is not None
    changed = replace(DUE, blocked="x", pipeline_version=2, definition_event_id="e")
    trigger = decide(POLICY, changed).trigger
    assert trigger is not None
    assert trigger.kind == "changed-pipeline"
