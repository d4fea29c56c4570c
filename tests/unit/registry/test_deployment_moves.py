import pytest
from everloop_registry.domain.deployment import (
    Deployment,
    Refusal,
    demote,
    pin,
    promote,
    roll_back,
    start_challenge,
    unpin,
)
from everloop_schemas.events import ArtifactRef, ModelRef


def model(version: int) -> ModelRef:
    artifact = ArtifactRef(sha256=f"{version:064x}", bytes=10, chunks=1)
    return ModelRef(model_version=version, pipeline_version=1, artifact=artifact)


def champions(*versions: int) -> Deployment:
    deployment = Deployment("p")
    for version in versions:
        deployment = promote(deployment, model(version))
    return deployment


def test_each_champion_becomes_previous() -> None:
    deployment = champions(1, 2)
    assert (deployment.revision, deployment.champion_version) == (2, 2)
    assert deployment.alias_of(1) == "previous"
    assert deployment.alias_of(2) == "champion"


def test_rollback_goes_back_and_never_forward() -> None:
    """On a bad night the second rollback must not bring the bad version back."""
    once = roll_back(champions(1, 2, 3))
    assert (once.champion_version, once.revision) == (2, 4)
    twice = roll_back(once)
    assert (twice.champion_version, twice.revision) == (1, 5)
    assert isinstance(roll_back(twice), Refusal)


def test_a_version_approved_again_stands_once_in_the_past() -> None:
    deployment = promote(champions(1, 2), model(1))
    assert [ref.model_version for ref in deployment.former] == [2]


def test_the_champion_is_not_promoted_twice() -> None:
    assert isinstance(promote(champions(1), model(1)), Refusal)


def test_a_challenger_that_wins_stops_challenging() -> None:
    deployment = start_challenge(champions(1), model(2), 0.1)
    assert (deployment.challenger.model_version, deployment.challenger_share) == (2, 0.1)
    won = promote(deployment, model(2))
    assert (won.champion_version, won.challenger, won.challenger_share) == (2, None, 0.0)


def test_the_first_version_needs_no_challenge() -> None:
    """A canary of nothing would leave the pipeline without an answer."""
    assert start_challenge(Deployment("p"), model(1), 0.1).champion_version == 1


def test_a_rejected_challenger_leaves() -> None:
    deployment = demote(start_challenge(champions(1), model(2), 0.1), 2)
    assert deployment.challenger is None


def test_a_rejected_former_champion_is_no_rollback_target() -> None:
    """Someone said that version 1 is bad: a rollback at night must not bring it back."""
    assert demote(champions(1, 2), 1).previous is None


def test_the_champion_cannot_be_taken_away() -> None:
    """Serving would have nothing to answer with."""
    assert isinstance(demote(champions(1), 1), Refusal)


def test_rejecting_a_bystander_changes_nothing() -> None:
    deployment = champions(1)
    assert demote(deployment, 9) == deployment


@pytest.mark.parametrize("times", [1, 2])
def test_pinning_twice_is_pinning_once(times) -> None:
    deployment = champions(1, 2)
    for _ in range(times):
        deployment = pin(deployment, model(1))
    assert (deployment.revision, deployment.holds_pin(1)) == (3, True)
    gone = unpin(unpin(deployment, 1), 1)
    assert (gone.revision, gone.pinned) == (4, ())
