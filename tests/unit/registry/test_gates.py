import math

import pytest
from everloop_registry.domain.gates import BetterThan, Evidence, Limit, SliceRatio, Verdict, evaluate
from everloop_schemas.events import MetricEvidence, SliceEvidence, UnseenRows


def metric(**changes) -> MetricEvidence:
    given = {
        "name": "log_loss",
        "candidate": 0.40,
        "champion": 0.42,
        "prior": 0.50,
        "rows": 5000,
        "better_than_champion_confidence": 0.9,
        "better_than_prior_confidence": 0.99,
    }
    return MetricEvidence(**(given | changes))


def evidence(*metrics: MetricEvidence, compared_with: int | None = 3, champion: int | None = 3) -> Evidence:
    return Evidence(metrics, compared_with, champion)


def part(value: str, candidate: float, champion: float | None, rows: int = 500) -> SliceEvidence:
    return SliceEvidence(
        feature="origin", value=value, rows=rows, candidate=candidate, champion=champion, prior=0.6
    )


def test_missing_evidence_fails_its_gate() -> None:
    """A trainer that forgot the slice metrics must not get a model approved."""
    verdict = evaluate([SliceRatio("log_loss", "origin", 1.2)], evidence(metric()))
    assert [(g.name, g.passed, g.reason) for g in verdict.gates] == [
        ("log_loss by origin", False, "no slice metrics of origin in the evidence")
    ]


def test_every_gate_is_checked_after_one_has_failed() -> None:
    """A team that mends one gate at a time would train once per gate."""
    gates = [Limit("log_loss", at_most=0.1), Limit("auc", at_least=0.6), BetterThan("log_loss", "prior")]
    verdict = evaluate(gates, evidence(metric()))
    assert [gate.passed for gate in verdict.gates] == [False, False, True]
    assert not verdict.passed


def test_the_first_model_has_no_champion_to_beat() -> None:
    """Without this, no pipeline would ever get its first model."""
    result = BetterThan("log_loss", "champion", 0.9).check(
        evidence(metric(champion=None), compared_with=None, champion=None)
    )
    assert (result.passed, result.reason) == (True, "no champion yet: nothing to beat")


@pytest.mark.parametrize("compared_with", [None, 2, 4])
def test_a_comparison_with_another_version_than_the_champion_fails(compared_with) -> None:
    """A model that beat last week's champion could replace a better one of today."""
    result = BetterThan("log_loss", "champion").check(evidence(metric(), compared_with=compared_with))
    assert not result.passed
    assert "the champion is version 3" in result.reason


def test_a_model_that_could_not_be_compared_says_how_many_rows_are_missing() -> None:
    """Who changed a pipeline must not stand before a closed gate without knowing what opens it."""
    few = UnseenRows(champion_version=2, rows=37, needed=200)
    result = BetterThan("log_loss", "champion").check(Evidence([metric(champion=None)], None, 2, few))
    assert not result.passed
    assert result.reason == (
        "only 37 of the 200 labelled rows needed for a comparison are newer than what the champion was"
        " trained on; send more labels, or approve it with --override"
    )


@pytest.mark.parametrize(("compared_with", "said"), [(2, "compared with"), (None, "trained when")])
def test_a_champion_that_changed_while_a_model_was_trained_is_said_so(compared_with, said) -> None:
    """After a rollback nobody must look for missing rows: the model met another champion."""
    few = UnseenRows(champion_version=2, rows=37, needed=200)
    result = BetterThan("log_loss", "champion").check(Evidence([metric()], compared_with, 1, few))
    assert not result.passed
    assert result.reason.startswith(f"{said} version 2")
    assert "but the champion is version 1 by now; the next run is compared with it" in result.reason


def test_confidence_below_its_limit_fails() -> None:
    """A lucky week must not replace the champion."""
    result = BetterThan("log_loss", "champion", 0.95).check(evidence(metric()))
    assert (result.passed, result.observed, result.limit) == (False, 0.9, 0.95)


def test_missing_confidence_fails() -> None:
    result = BetterThan("log_loss", "prior", 0.9).check(evidence(metric(better_than_prior_confidence=None)))
    assert not result.passed


def test_a_worse_candidate_fails_however_confident() -> None:
    """Resamples that disagree with the whole are a defect of the trainer, not a reason to approve."""
    assert not BetterThan("log_loss", "champion", 0.6).check(evidence(metric(candidate=0.43))).passed


def test_equal_is_not_better() -> None:
    assert not BetterThan("log_loss", "champion").check(evidence(metric(candidate=0.42))).passed


def test_higher_is_better_for_auc() -> None:
    auc = metric(name="auc", candidate=0.8, champion=0.7, prior=0.5)
    assert BetterThan("auc", "champion", 0.9).check(evidence(auc)).passed
    worse = metric(name="auc", candidate=0.6, champion=0.7, prior=0.5)
    assert not BetterThan("auc", "champion").check(evidence(worse)).passed


@pytest.mark.parametrize("candidate", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_fail(candidate) -> None:
    """NaN compares as false with everything: a careless check would let it through."""
    gates = [BetterThan("log_loss", "prior"), Limit("log_loss", at_most=9.0), Limit("log_loss", at_least=0.0)]
    verdict = evaluate(gates, evidence(metric(candidate=candidate)))
    assert [gate.passed for gate in verdict.gates] == [False, False, False]


def test_limits_include_their_bound() -> None:
    assert Limit("log_loss", at_most=0.4).check(evidence(metric())).passed
    assert Limit("log_loss", at_least=0.4).check(evidence(metric())).passed
    assert not Limit("log_loss", at_most=0.39).check(evidence(metric())).passed


def test_the_worst_slice_decides() -> None:
    """A model that is better on the whole may be much worse for one airport."""
    slices = [part("EWR", 0.40, 0.40), part("LGA", 0.80, 0.40), part("JFK", 0.30, 0.40)]
    result = SliceRatio("log_loss", "origin", 1.3).check(evidence(metric(slices=slices)))
    assert (result.passed, result.observed, result.limit) == (False, 2.0, 1.3)
    assert "LGA" in result.reason


def test_small_slices_are_counted_not_judged() -> None:
    """Three flights of a small carrier must not decide about a model."""
    slices = [part("EWR", 0.40, 0.40), part("LGA", 4.0, 0.40, rows=3)]
    result = SliceRatio("log_loss", "origin", 1.3).check(evidence(metric(slices=slices)))
    assert result.passed
    assert "1 slices below" in result.reason


def test_only_small_slices_are_no_evidence() -> None:
    slices = [part("LGA", 0.1, 0.40, rows=3)]
    assert not SliceRatio("log_loss", "origin", 1.3).check(evidence(metric(slices=slices))).passed


def test_slices_without_a_champion_are_held_against_the_prior() -> None:
    result = SliceRatio("log_loss", "origin", 1.3).check(evidence(metric(slices=[part("EWR", 0.3, None)])))
    assert (result.passed, result.observed) == (True, 0.5)


def test_no_declared_gate_passes_and_says_so() -> None:
    assert Verdict(()).passed
    assert Verdict(()).summary == "the pipeline declares no gates"
