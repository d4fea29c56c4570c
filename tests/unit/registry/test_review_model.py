import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from everloop_kernel.errors import PermanentError
from everloop_registry.application.decide import approve, reject
from everloop_registry.application.deploy import Wish, pin, roll_back, unpin
from everloop_registry.application.errors import NotFound, Refused
from everloop_registry.application.review_model import review_model
from everloop_registry.domain.audit import first_broken
from everloop_registry.domain.models import stage_of
from everloop_schemas.signing import signed_bytes

PRIOR_GATE = {"metric": "log_loss", "better_than": "prior"}
CHAMPION_GATE = {"metric": "log_loss", "better_than": "champion"}
WISH = Wish("p", "kim", "because")


async def test_a_good_model_is_approved_and_deployed(work, office, define, trained) -> None:
    define(gates=[PRIOR_GATE, CHAMPION_GATE])
    await review_model(trained(), work, office)
    assert work.names() == ["ModelApproved", "DeploymentChanged"]
    approved, changed = (event for _, event in work.emitted)
    assert [gate.name for gate in approved.gates] == [
        "artifact",
        "log_loss better than prior",
        "log_loss better than champion",
    ]
    assert (changed.revision, changed.champion.model_version) == (1, 1)
    assert changed.changed_at == trained().trained_at


async def test_the_same_event_twice_has_one_effect(work, office, define, trained) -> None:
    """Kafka redelivers; a second approval would start a second swap and a second line in the history."""
    define(gates=[PRIOR_GATE])
    await review_model(trained(), work, office)
    before = (list(work.emitted), list(work.trail))
    await review_model(trained(), work, office)
    assert (work.emitted, work.trail) == before


async def test_a_bad_model_is_rejected_with_every_reason(work, office, define, trained) -> None:
    define(gates=[PRIOR_GATE, {"metric": "auc", "at_least": 0.6}])
    await review_model(trained(candidate=0.6), work, office)
    assert work.names() == ["ModelRejected"]
    assert [gate.passed for gate in work.emitted[0][1].gates] == [True, False, False]
    assert work.deployments == {}


async def test_bytes_that_are_not_what_was_trained_are_rejected(
    work, office, artifacts, define, trained
) -> None:
    """Serving would refuse them later: the pipeline would have a champion that nobody can load."""
    define(gates=[])
    artifacts.problem = "the digest differs"
    await review_model(trained(), work, office)
    assert work.names() == ["ModelRejected"]
    with pytest.raises(Refused, match="not intact"):
        await approve(work, office, WISH, 1, override=True)


async def test_an_unknown_pipeline_version_is_a_dead_letter(work, office, trained) -> None:
    with pytest.raises(PermanentError) as raised:
        await review_model(trained(), work, office)
    assert raised.value.reason_code == "unknown-pipeline-version"


async def test_another_model_cannot_take_a_known_version(work, office, define, trained) -> None:
    """Two trainers that count alike must not replace each other's model in the history."""
    define()
    await review_model(trained(), work, office)
    with pytest.raises(PermanentError) as raised:
        await review_model(trained(run_id="another"), work, office)
    assert raised.value.reason_code == "version-taken"


async def test_manual_rollout_waits_for_a_person(work, office, define, trained) -> None:
    define(gates=[PRIOR_GATE], mode="manual")
    await review_model(trained(), work, office)
    assert work.names() == []
    assert stage_of(work.kept["p", 1], await work.deployment("p")) == "awaiting-approval"
    await approve(work, office, WISH, 1)
    assert work.names() == ["ModelApproved", "DeploymentChanged"]
    assert work.emitted[0][1].decided_by == "kim"


async def test_failed_gates_are_overruled_only_on_purpose(work, office, define, trained) -> None:
    define(gates=[PRIOR_GATE])
    await review_model(trained(candidate=0.9), work, office)
    with pytest.raises(Refused, match="override"):
        await approve(work, office, WISH, 1)
    await approve(work, office, WISH, 1, override=True)
    assert (await work.deployment("p")).champion_version == 1
    overruled = [entry.deed.details.get("overruled_gates") for entry in work.trail]
    assert ["log_loss better than prior"] in overruled


@pytest.mark.parametrize(("mode", "share"), [("shadow", 0.0), ("canary", 0.1)])
async def test_shadow_and_canary_start_a_challenge(  # noqa: PLR0917  (fixtures)
    work, office, define, trained, mode, share
) -> None:
    define(mode=mode)
    await review_model(trained(1), work, office)
    await review_model(trained(2, champion_version=1), work, office)
    changed = work.emitted[-1][1]
    assert (changed.champion.model_version, changed.challenger.model_version) == (1, 2)
    assert changed.challenger_share == share


async def test_rollback_and_pins_are_revisions_of_their_own(work, office, define, trained) -> None:
    define()
    for version in (1, 2):
        await review_model(trained(version, champion_version=version - 1 or None), work, office)
    await pin(work, office, WISH, 1)
    await pin(work, office, WISH, 1)
    await roll_back(work, office, WISH)
    await unpin(work, office, WISH, 1)
    changes = [event for _, event in work.emitted if hasattr(event, "revision")]
    assert [(change.revision, change.champion.model_version) for change in changes] == [
        (1, 1),
        (2, 2),
        (3, 2),
        (4, 1),
        (5, 1),
    ]
    assert [len(change.pinned) for change in changes] == [0, 0, 1, 1, 0]
    assert len({event_id for event_id, _ in work.emitted}) == len(work.emitted)


async def test_what_makes_no_sense_is_refused_in_words(work, office, define, trained) -> None:
    define()
    with pytest.raises(NotFound):
        await approve(work, office, WISH, 1)
    await review_model(trained(), work, office)
    for move in (
        approve(work, office, WISH, 1),
        reject(work, office, WISH, 1),
        roll_back(work, office, WISH),
    ):
        with pytest.raises(Refused):
            await move


async def test_a_rejected_waiting_model_stays_out(work, office, define, trained) -> None:
    define(mode="manual")
    await review_model(trained(), work, office)
    await reject(work, office, WISH, 1)
    assert work.names() == ["ModelRejected"]
    assert work.deployments == {}


async def test_the_whole_story_is_one_intact_chain(work, office, define, trained) -> None:
    define(gates=[CHAMPION_GATE])
    await review_model(trained(1), work, office)
    await review_model(trained(2, champion_version=1), work, office)
    await roll_back(work, office, WISH)
    actions = [entry.deed.action for entry in work.trail]
    assert actions == ["model-approved", "deployment-changed"] * 2 + ["rolled-back", "deployment-changed"]
    assert first_broken(work.trail) is None


async def test_a_tampered_deployment_fails_verification(work, office, signing_key, define, trained) -> None:
    """Whoever can write to Kafka could otherwise make every client use their model."""
    define()
    await review_model(trained(), work, office)
    event = work.emitted[-1][1]
    public = Ed25519PublicKey.from_public_bytes(signing_key.public_bytes)
    received = event.model_dump(mode="json")
    public.verify(base64.b64decode(event.signature), signed_bytes(event))
    public.verify(base64.b64decode(event.signature), signed_bytes(received))
    for name, value in [("revision", 9), ("challenger_share", 0.5), ("key_id", "0" * 16), ("champion", None)]:
        with pytest.raises(InvalidSignature):
            public.verify(base64.b64decode(event.signature), signed_bytes({**received, name: value}))
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(event.signature), signed_bytes({**received, "added": 1}))


async def test_a_rollback_stands_until_a_model_was_compared_with_its_champion(
    work, office, define, trained
) -> None:
    """A run that was under way met another champion: its model must not undo what a person decided.

    Whatever the gates ask for: these have nothing to do with the champion.
    """
    define(gates=[PRIOR_GATE])
    for version in (1, 2):
        await review_model(trained(version, champion_version=version - 1 or None), work, office)
    await roll_back(work, office, WISH)
    for version, met in ((3, 2), (4, None)):
        await review_model(trained(version, champion_version=met), work, office)
        deployment = await work.deployment("p")
        assert (deployment.champion_version, deployment.rolled_back) == (1, True)
        assert "a rollback stands" in work.kept["p", version].decision.reason
    await review_model(trained(5, champion_version=1), work, office)
    deployment = await work.deployment("p")
    assert (deployment.champion_version, deployment.rolled_back) == (5, False)
    await review_model(trained(6, champion_version=1), work, office)
    assert (await work.deployment("p")).champion_version == 6


async def test_a_person_may_end_a_rollback(work, office, define, trained) -> None:
    """The decision is a person's: another one may replace it, and then the gates decide as before."""
    define(gates=[PRIOR_GATE])
    for version in (1, 2):
        await review_model(trained(version, champion_version=version - 1 or None), work, office)
    await roll_back(work, office, WISH)
    await approve(work, office, WISH, 2)
    assert not (await work.deployment("p")).rolled_back
