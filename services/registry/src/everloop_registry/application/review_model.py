"""A trained version arrives: check it, decide, and say so."""

from everloop_kernel.errors import PermanentError
from everloop_schemas.events import GateResult, ModelApproved, ModelRejected, ModelTrained
from everloop_schemas.ids import derived_id

from everloop_registry.application.deploy import put_in_force
from everloop_registry.application.ports import Office, Work
from everloop_registry.application.record import record
from everloop_registry.domain.audit import Deed
from everloop_registry.domain.deployment import Refusal, promote, start_challenge
from everloop_registry.domain.gates import AfterRollback, Evidence, Verdict, evaluate
from everloop_registry.domain.models import ARTIFACT_GATE, Decision, Model
from everloop_registry.domain.policy import Rollout, declared_gates, declared_rollout

__all__ = ["announce_approval", "announce_rejection", "review_model"]

BY_GATES = "gates"
"""Who decided, when no person did."""


async def review_model(trained: ModelTrained, work: Work, office: Office) -> None:
    """Approve or reject a trained version by its pipeline's gates, once, and say why.

    Raises:
        PermanentError: for an unknown pipeline version, or another model under a known version number.
    """
    if await _known(trained, work):
        return
    async with work.kept_alive():
        artifact = _artifact_gate(trained, await office.artifacts.problem_with(trained.artifact))
    await work.lock(trained.pipeline)
    if await _known(trained, work):
        return
    deployment = await work.deployment(trained.pipeline)
    pipeline = await work.pipeline_version(trained.pipeline, trained.pipeline_version)
    if pipeline is None:
        raise PermanentError(
            "unknown-pipeline-version",
            f"pipeline {trained.pipeline!r} has no version {trained.pipeline_version}; apply its file first",
        )
    evidence = Evidence(
        trained.metrics, trained.champion_version, deployment.champion_version, trained.unseen
    )
    standing = [AfterRollback()] if deployment.rolled_back else []
    judged = evaluate([*standing, *declared_gates(pipeline.definition)], evidence)
    verdict = Verdict((artifact, *judged.gates))
    await _decide(trained, verdict, declared_rollout(pipeline.definition), work, office)


async def announce_approval(model: Model, work: Work) -> None:
    """Say that the version may be served."""
    event = ModelApproved(
        run_id=model.trained.run_id,
        pipeline=model.pipeline,
        model_version=model.version,
        artifact=model.trained.artifact,
        gates=list(model.gates),
        decided_by=model.decision.by,
        decided_at=model.decision.at,
    )
    work.emit(event, id=_decision_id(model, "model-approved"), key=model.pipeline)


async def announce_rejection(model: Model, work: Work) -> None:
    """Say that the version may not be served."""
    event = ModelRejected(
        run_id=model.trained.run_id,
        pipeline=model.pipeline,
        model_version=model.version,
        gates=list(model.gates),
        decided_by=model.decision.by,
        decided_at=model.decision.at,
    )
    work.emit(event, id=_decision_id(model, "model-rejected"), key=model.pipeline)


async def _decide(
    trained: ModelTrained, verdict: Verdict, rollout: Rollout, work: Work, office: Office
) -> None:
    decision = Decision(by=BY_GATES, at=trained.trained_at, reason=verdict.summary)
    if not verdict.passed:
        model = Model(trained, verdict.gates, "rejected", decision)
        await _keep(model, "model-rejected", work, office)
        await announce_rejection(model, work)
    elif rollout.mode == "manual":
        waiting = Model(trained, verdict.gates, "awaiting-approval", decision)
        await _keep(waiting, "model-awaiting-approval", work, office)
    else:
        model = Model(trained, verdict.gates, "approved", decision)
        await _keep(model, "model-approved", work, office)
        await announce_approval(model, work)
        await _roll_out(model, rollout, work, office)


async def _roll_out(model: Model, rollout: Rollout, work: Work, office: Office) -> None:
    deployment = await work.deployment(model.pipeline)
    if rollout.mode == "direct":
        after = promote(deployment, model.ref)
    else:
        after = start_challenge(deployment, model.ref, rollout.share)
    if isinstance(after, Refusal):
        return  # the version was put in force by hand before its event was read: nothing is left to do
    reason = f"version {model.version} approved: {model.decision.reason}"
    await put_in_force(work, office, after, by=BY_GATES, reason=reason, at=model.trained.trained_at)


async def _keep(model: Model, action: str, work: Work, office: Office) -> None:
    await work.save_model(model)
    details = {
        "run_id": model.trained.run_id,
        "trigger": model.trained.trigger.model_dump(mode="json"),
        "dataset_sha256": model.trained.dataset.sha256,
        "artifact_sha256": model.trained.artifact.sha256,
        "gates": [gate.model_dump(mode="json") for gate in model.gates],
        "reason": model.decision.reason,
    }
    deed = Deed(model.pipeline, model.decision.by, action, model.version, details)
    await record(work, deed, office.clock())


async def _known(trained: ModelTrained, work: Work) -> bool:
    model = await work.model(trained.pipeline, trained.model_version)
    if model is None:
        return False
    if model.trained.run_id != trained.run_id or model.trained.artifact != trained.artifact:
        raise PermanentError(
            "version-taken",
            f"version {trained.model_version} of {trained.pipeline!r} is run {model.trained.run_id}'s; "
            f"run {trained.run_id} cannot have it too",
        )
    return True


def _artifact_gate(trained: ModelTrained, problem: str | None) -> GateResult:
    reason = problem or f"{trained.artifact.bytes} bytes match their SHA-256"
    return GateResult(name=ARTIFACT_GATE, passed=problem is None, reason=reason)


def _decision_id(model: Model, kind: str) -> str:
    """Derive it from the moment too: a person may decide again. An event's moment is fixed by the event."""
    return derived_id(f"{model.trained.run_id}/{model.decision.at.isoformat()}", kind)
