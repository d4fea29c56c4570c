import math

from everloop_registry.domain.gates import BetterThan, Evidence, Limit, SliceRatio, evaluate
from everloop_schemas.events import MetricEvidence, SliceEvidence
from hypothesis import given
from hypothesis import strategies as st

numbers = st.floats(allow_nan=True, allow_infinity=True)
maybe = st.none() | numbers
names = st.sampled_from(["log_loss", "brier", "auc", "mae", "rmse"])
slices = st.builds(
    SliceEvidence,
    feature=st.sampled_from(["origin", "carrier"]),
    value=st.text(max_size=3),
    rows=st.integers(0, 100),
    candidate=numbers,
    champion=maybe,
    prior=numbers,
)
metrics = st.builds(
    MetricEvidence,
    name=names,
    candidate=numbers,
    champion=maybe,
    prior=numbers,
    rows=st.integers(0, 10_000),
    better_than_champion_confidence=maybe,
    better_than_prior_confidence=maybe,
    slices=st.lists(slices, max_size=4),
)
versions = st.none() | st.integers(1, 3)
evidences = st.builds(Evidence, st.lists(metrics, max_size=3), versions, versions)
gates = st.lists(
    st.one_of(
        st.builds(
            BetterThan, names, st.sampled_from(["champion", "prior"]), st.none() | st.floats(0.5, 0.99)
        ),
        st.builds(Limit, names, st.floats(-1, 1), st.none()),
        st.builds(Limit, names, st.none(), st.floats(-1, 1)),
        st.builds(SliceRatio, names, st.sampled_from(["origin", "carrier"]), st.floats(0.1, 3)),
    ),
    max_size=5,
)


@given(gates, evidences)
def test_every_gate_answers_whatever_the_evidence(declared, evidence) -> None:
    """A gate that raised would stop the registry at one strange model: no other would ever be judged."""
    verdict = evaluate(declared, evidence)
    assert [gate.name for gate in verdict.gates] == [gate.name for gate in declared]
    assert all(gate.reason for gate in verdict.gates)
    assert verdict.passed == all(gate.passed for gate in verdict.gates)


@given(gates.filter(bool), versions)
def test_no_evidence_approves_only_for_want_of_a_champion(declared, champion) -> None:
    """Silence is no approval."""
    for gate, result in zip(declared, evaluate(declared, Evidence([], None, champion)).gates, strict=True):
        excused = isinstance(gate, BetterThan) and gate.reference == "champion" and champion is None
        assert result.passed == excused


@given(evidences, st.floats(-10, 10), st.floats(0, 5))
def test_a_looser_limit_never_fails_what_a_tighter_one_passes(evidence, limit, slack) -> None:
    if Limit("log_loss", at_most=limit).check(evidence).passed:
        assert Limit("log_loss", at_most=limit + slack).check(evidence).passed


@given(evidences)
def test_what_is_observed_can_be_published(evidence) -> None:
    """NaN and infinity have no JSON: a verdict that holds one could never be told."""
    verdict = evaluate([BetterThan("log_loss", "prior", 0.6), SliceRatio("log_loss", "origin", 2)], evidence)
    assert all(gate.observed is None or math.isfinite(gate.observed) for gate in verdict.gates)
