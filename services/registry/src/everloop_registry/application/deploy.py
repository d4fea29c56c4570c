"""Put a deployment in force, and the moves a person makes: roll back, pin, unpin."""

from dataclasses import dataclass
from datetime import datetime

from everloop_schemas.events import DeploymentChanged
from everloop_schemas.ids import derived_id

from everloop_registry.application.errors import NotFound, Refused
from everloop_registry.application.ports import Office, Work
from everloop_registry.application.record import record
from everloop_registry.domain import deployment as moves
from everloop_registry.domain.audit import Deed
from everloop_registry.domain.deployment import Deployment, Refusal
from everloop_registry.domain.models import Model

__all__ = ["Wish", "known_model", "pin", "put_in_force", "roll_back", "unpin"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for, of which pipeline, and why."""

    pipeline: str
    by: str
    reason: str


async def known_model(work: Work, pipeline: str, version: int) -> Model:
    """The version, or `NotFound` in words for a person."""
    model = await work.model(pipeline, version)
    if model is None:
        raise NotFound(f"pipeline {pipeline!r} has no model version {version}")
    return model


async def roll_back(work: Work, office: Office, wish: Wish) -> Deployment:
    """Make the previous champion the champion again.

    Raises:
        Refused: when there is no earlier champion.
    """
    await work.lock(wish.pipeline)
    before = await work.deployment(wish.pipeline)
    after = moves.roll_back(before)
    if isinstance(after, Refusal):
        raise Refused(after)
    details = {"reason": wish.reason, "from_version": before.champion_version}
    deed = Deed(wish.pipeline, wish.by, "rolled-back", after.champion_version, details)
    await record(work, deed, office.clock())
    await put_in_force(work, office, after, by=wish.by, reason=f"rolled back: {wish.reason}")
    return after


async def pin(work: Work, office: Office, wish: Wish, version: int) -> Deployment:
    """Hold a version loaded beside the champion. Any version whose bytes are intact may be pinned.

    Raises:
        NotFound: for an unknown version.
        Refused: for one whose artifact is not intact.
    """
    await work.lock(wish.pipeline)
    model = await known_model(work, wish.pipeline, version)
    if not model.intact:
        raise Refused(Refusal(f"the artifact of version {version} is not intact", "train the version again"))
    before = await work.deployment(wish.pipeline)
    after = moves.pin(before, model.ref)
    if after != before:
        await _put_pins_in_force(work, office, after, wish, version=version, action="pinned")
    return after


async def unpin(work: Work, office: Office, wish: Wish, version: int) -> Deployment:
    """Let a pinned version go; nothing happens when it is not pinned.

    Raises:
        NotFound: for an unknown version.
    """
    await work.lock(wish.pipeline)
    await known_model(work, wish.pipeline, version)
    before = await work.deployment(wish.pipeline)
    after = moves.unpin(before, version)
    if after != before:
        await _put_pins_in_force(work, office, after, wish, version=version, action="unpinned")
    return after


async def put_in_force(
    work: Work, office: Office, deployment: Deployment, *, by: str, reason: str, at: datetime | None = None
) -> None:
    """Keep the new revision, sign it and tell serving. `at` is pipeline time when an event is the cause."""
    now = office.clock()
    await work.save_deployment(deployment)
    event = office.signer.sign(_announcement(deployment, at or now, reason))
    source = f"{deployment.pipeline}/{deployment.revision}"
    work.emit(event, id=derived_id(source, "deployment-changed"), key=deployment.pipeline)
    details = event.model_dump(mode="json", exclude={"pipeline"})
    deed = Deed(deployment.pipeline, by, "deployment-changed", deployment.champion_version, details)
    await record(work, deed, now)


async def _put_pins_in_force(
    work: Work, office: Office, after: Deployment, wish: Wish, *, version: int, action: str
) -> None:
    deed = Deed(wish.pipeline, wish.by, action, version, {"reason": wish.reason})
    await record(work, deed, office.clock())
    await put_in_force(work, office, after, by=wish.by, reason=f"version {version} {action}: {wish.reason}")


def _announcement(deployment: Deployment, at: datetime, reason: str) -> DeploymentChanged:
    """The event, not signed yet."""
    return DeploymentChanged(
        pipeline=deployment.pipeline,
        revision=deployment.revision,
        champion=deployment.champion,
        challenger=deployment.challenger,
        challenger_share=deployment.challenger_share,
        pinned=list(deployment.pinned),
        reason=reason,
        changed_at=at,
        key_id="",
        signature="",
    )
