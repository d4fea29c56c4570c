"""End a run: what came of it is published in the transaction that says so, once."""

from everloop_schemas.events import ArtifactRef, ModelTrained, RunFailed
from everloop_schemas.ids import derived_id

from everloop_trainer.application.consider import consider
from everloop_trainer.application.ports import Conclusion
from everloop_trainer.domain.job import Outcome, Trained, Untrainable
from everloop_trainer.domain.runs import Run

__all__ = ["conclude"]


async def conclude(run: Run, outcome: Outcome, artifact: bytes | None, work: Conclusion) -> bool:
    """Publish a model or a failure and see whether another run is due; False when the run is not ours."""
    if outcome.trained is not None and artifact is not None:
        ended = await _trained(run, outcome.trained, artifact, work)
    else:
        assert outcome.failed is not None
        ended = await _failed(run, outcome.failed, work)
    if ended:
        await consider(run.pipeline, work, run.traceparent)
    return ended


async def _trained(run: Run, trained: Trained, artifact: bytes, work: Conclusion) -> bool:
    version = await work.end_trained(run, trained)
    if version is None:
        return False
    chunks = work.emit_artifact(artifact)  # before the event that names it
    event = ModelTrained(
        run_id=run.run_id,
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        model_version=version,
        trigger=run.trigger,
        dataset=trained.dataset,
        artifact=ArtifactRef(sha256=trained.artifact_sha256, bytes=trained.artifact_bytes, chunks=chunks),
        champion_version=trained.champion_version,
        unseen=trained.unseen,
        metrics=trained.metrics,
        parameters=trained.parameters,
        libraries=trained.libraries,
        seconds=trained.seconds,
        trained_at=run.pipeline_time,
    )
    work.emit(event, id=derived_id(run.run_id, "model-trained"), key=run.pipeline)
    if trained.profile is not None:
        work.emit(trained.profile, id=derived_id(run.run_id, "data-profiled"), key=run.pipeline)
    return True


async def _failed(run: Run, failed: Untrainable, work: Conclusion) -> bool:
    if not await work.end_failed(run, failed):
        return False
    event = RunFailed(
        run_id=run.run_id,
        pipeline=run.pipeline,
        trigger=run.trigger,
        reason=failed.reason,
        mend=failed.mend,
    )
    work.emit(event, id=derived_id(run.run_id, "run-failed"), key=run.pipeline)
    return True
