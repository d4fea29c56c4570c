"""A person approves or rejects a version."""

from everloop_registry.application.deploy import Wish, known_model, put_in_force
from everloop_registry.application.errors import Refused
from everloop_registry.application.ports import Office, Work
from everloop_registry.application.record import record
from everloop_registry.application.review_model import announce_approval, announce_rejection
from everloop_registry.domain.audit import Deed
from everloop_registry.domain.deployment import Deployment, Refusal, demote, promote
from everloop_registry.domain.models import Decision, Model, approval_refused, rejection_refused

__all__ = ["approve", "reject"]


async def approve(
    work: Work, office: Office, wish: Wish, version: int, *, override: bool = False
) -> Deployment:
    """Make a version the champion: one that waits, a challenger, an archived one; overriding, a refused one.

    Raises:
        NotFound: for an unknown version.
        Refused: when it is not intact, failed its gates without `override`, or is the champion already.
    """
    await work.lock(wish.pipeline)
    model = await known_model(work, wish.pipeline, version)
    before = await work.deployment(wish.pipeline)
    _raise(approval_refused(model, before, override=override))
    after = promote(before, model.ref)
    if isinstance(after, Refusal):
        raise Refused(after)
    approved = model.decided("approved", Decision(by=wish.by, at=office.clock(), reason=wish.reason))
    await _keep(approved, "model-approved", work, overrode=override)
    await announce_approval(approved, work)
    await put_in_force(
        work, office, after, by=wish.by, reason=f"version {version} approved by {wish.by}: {wish.reason}"
    )
    return after


async def reject(work: Work, office: Office, wish: Wish, version: int) -> Deployment:
    """Refuse a version; if it is the challenger or the previous champion, it leaves the deployment.

    Raises:
        NotFound: for an unknown version.
        Refused: for the champion, a pinned version, or one rejected before.
    """
    await work.lock(wish.pipeline)
    model = await known_model(work, wish.pipeline, version)
    _raise(rejection_refused(model))
    before = await work.deployment(wish.pipeline)
    after = demote(before, version)
    if isinstance(after, Refusal):
        raise Refused(after)
    rejected = model.decided("rejected", Decision(by=wish.by, at=office.clock(), reason=wish.reason))
    await _keep(rejected, "model-rejected", work)
    await announce_rejection(rejected, work)
    if after != before:
        reason = f"version {version} rejected by {wish.by}: {wish.reason}"
        await put_in_force(work, office, after, by=wish.by, reason=reason)
    return after


async def _keep(model: Model, action: str, work: Work, *, overrode: bool = False) -> None:
    await work.save_model(model)
    failed = [gate.name for gate in model.gates if not gate.passed]
    details = {"reason": model.decision.reason, "overruled_gates": failed if overrode else []}
    deed = Deed(model.pipeline, model.decision.by, action, model.version, details)
    await record(work, deed, model.decision.at)


def _raise(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise Refused(refusal)
