from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from everloop_trainer.domain.policy import (
    Arrival,
    DriftSignal,
    LastRun,
    ManualRequest,
    Policy,
    Reigning,
    Situation,
    decide,
)

NOW = datetime(2013, 2, 1, tzinfo=UTC)
POLICY = Policy(
    new_labelled_rows=1000,
    drift=True,
    max_age=timedelta(days=30),
    cooldown=timedelta(days=1),
    minimum_rows=500,
)


def situation(**changes):
    known = {"pipeline_version": 1, "labels": 400, "pipeline_time": NOW}
    return Situation(**{**known, **changes})


def ran(days_ago=5.0, labels=0, version=1):
    return LastRun(version, labels, NOW - timedelta(days=days_ago))


def kind(now, policy=POLICY):
    trigger = decide(policy, now).trigger
    return None if trigger is None else (trigger.kind, trigger.event_id)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, None, id="too few rows"),
        pytest.param({"labels": 1000, "arrival": Arrival("a")}, ("new-data", "a"), id="enough rows"),
        pytest.param({"labels": 1000}, None, id="enough rows but no event to answer"),
        pytest.param({"labels": 5000, "arrival": Arrival("a"), "active": True}, None, id="one run at a time"),
        pytest.param(
            {"labels": 1999, "arrival": Arrival("a"), "last": ran(labels=1000)},
            None,
            id="counts since the cut",
        ),
        pytest.param({"labels": 3000, "arrival": Arrival("a"), "last": ran(0.5)}, None, id="cooling down"),
        pytest.param(
            {"labels": 600, "drift": DriftSignal("d", "feature", 1), "last": ran()},
            ("drift", "d"),
            id="drift",
        ),
        pytest.param(
            {"labels": 600, "drift": DriftSignal("d", "loss", 1), "last": ran()},
            ("performance", "d"),
            id="loss",
        ),
        pytest.param(
            {"labels": 600, "drift": DriftSignal("d", "loss", 1), "last": ran(labels=200)},
            None,
            id="drift without new rows to learn from",
        ),
        pytest.param(
            {"labels": 600, "drift": DriftSignal("d", "loss", 1), "last": ran(0.9)},
            None,
            id="drift cools down",
        ),
        pytest.param(
            {"labels": 600, "arrival": Arrival("a"), "last": ran(30)}, ("schedule", "a"), id="an old model"
        ),
        pytest.param(
            {"manual": ManualRequest("m", "asked"), "last": ran(0)},
            ("manual", "m"),
            id="a person does not wait",
        ),
        pytest.param(
            {"manual": ManualRequest("m", "asked"), "active": True}, None, id="a person waits for a run"
        ),
        pytest.param(
            {"labels": 600, "pipeline_version": 2, "definition_event_id": "p", "last": ran(0)},
            ("changed-pipeline", "p"),
            id="changed pipeline",
        ),
        pytest.param(
            {"labels": 600, "definition_event_id": "p", "last": ran(0)}, None, id="the same pipeline again"
        ),
        pytest.param(
            {"labels": 600, "definition_event_id": "p"}, None, id="the first pipeline waits for data"
        ),
        pytest.param(
            {"labels": 2000, "arrival": Arrival("a"), "drift": DriftSignal("d", "feature", 1), "last": ran()},
            ("drift", "d"),
            id="of two causes the more specific",
        ),
        pytest.param(
            {"pipeline_time": None, "manual": ManualRequest("m", "x")}, None, id="no record, no run"
        ),
    ],
)
def test_each_cause_starts_a_run_when_it_should_and_not_before(changes, expected):
    """Without it models grow stale, or the machine trains all day."""
    assert kind(situation(**changes)) == expected


def test_a_cause_that_is_switched_off_stays_off():
    """A team that trains by hand must not be surprised by a run."""
    off = Policy(None, drift=False, max_age=None, cooldown=timedelta(0), minimum_rows=10)
    now = situation(labels=10**6, arrival=Arrival("a"), drift=DriftSignal("d", "loss", 1), last=ran(900))
    assert kind(now, off) is None


def test_the_reason_for_waiting_is_said():
    """Whoever wonders why nothing trains gets numbers, not silence."""
    assert decide(POLICY, situation()).why == "400 of 1000 new labelled rows"
    assert decide(POLICY, situation(last=ran(0.5))).why == (
        "cooling down until 2013-02-01 12:00 in pipeline time, 1d after the last run; "
        "400 of 1000 new labelled rows"
    )
    assert decide(POLICY, situation(last=ran(5))).why == (
        "400 of 1000 new labelled rows, or 500 of them from 2013-02-26 00:00 in pipeline time on"
    )
    assert decide(POLICY, situation(labels=1000)).why.endswith("ingest has yet to judge and announce them")


COMPARED = replace(POLICY, compared_rows=200)
CHANGED = {"pipeline_version": 2, "definition_event_id": "p", "champion": Reigning(3, 1, 600)}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({**CHANGED, "last": ran(0, labels=600)}, id="changed pipeline"),
        pytest.param(
            {"drift": DriftSignal("d", "feature", 1), "champion": Reigning(3, 1, 600), "last": ran()},
            id="drift",
        ),
        pytest.param({"arrival": Arrival("a"), "champion": Reigning(3, 1, 600), "last": ran(30)}, id="age"),
    ],
)
def test_a_run_waits_until_its_model_can_be_compared(changes):
    """A run whose model must be rejected for want of rows wastes the trigger: nothing would start again."""
    early = situation(labels=799, **changes)
    assert kind(early, COMPARED) is None
    assert kind(situation(labels=800, **changes), COMPARED) == kind(early, POLICY) != None  # noqa: E711
    assert decide(COMPARED, early).why.endswith(
        "starts when it can be compared with the champion: 199 of the 200 labelled rows needed are newer than"
        " what model 3 was trained on"
    )


def test_a_person_is_not_held_back_and_nobody_is_without_a_champion():
    """Who asks has looked; the first model has nothing to be compared with."""
    asked = situation(labels=700, manual=ManualRequest("m", "x"), **CHANGED, last=ran(0, labels=600))
    assert kind(asked, COMPARED) == ("manual", "m")
    alone = situation(labels=700, **{**CHANGED, "champion": None}, last=ran(0, labels=600))
    assert kind(alone, COMPARED) == ("changed-pipeline", "p")


def test_a_changed_pipeline_that_could_not_be_compared_is_trained_again_when_it_can():
    """Labels without value make no rows: two hundred of them promised a comparison that there was not."""
    tried = LastRun(2, 800, NOW - timedelta(days=1), unseen_rows=150)
    early = situation(labels=849, arrival=Arrival("a"), **CHANGED, last=tried)
    assert kind(early, COMPARED) is None
    assert "199 of the 200" in decide(COMPARED, early).why
    assert kind(replace(early, labels=850), COMPARED) == ("changed-pipeline", "a")
    done = replace(early, labels=850, last=replace(tried, unseen_rows=200))
    assert kind(done, COMPARED) is None
    deployed = replace(early, labels=850, champion=Reigning(4, 2, 600))
    assert kind(deployed, COMPARED) is None
    soon = replace(early, labels=850, last=replace(tried, decided_at=NOW - timedelta(hours=1)))
    assert kind(soon, COMPARED) is None  # or labels without value would start a run each
