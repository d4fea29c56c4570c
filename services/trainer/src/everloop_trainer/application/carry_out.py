"""Carry out one claimed run: dataset on disk, training process, conclusion."""

import logging

from everloop_trainer import metrics
from everloop_trainer.application.conclude import conclude
from everloop_trainer.application.ports import Artifacts, CrashedError, Runs, Storage, Trainings
from everloop_trainer.domain.job import Job, Outcome, Untrainable
from everloop_trainer.domain.runs import MAXIMUM_CRASHES, Run

__all__ = ["carry_out"]

_log = logging.getLogger(__name__)


async def carry_out(
    run: Run, runs: Runs, storage: Storage, trainings: Trainings, artifacts: Artifacts
) -> None:
    """Train and conclude; a run that was begun before, here or elsewhere, goes on from what it left."""
    job = await runs.job(run)
    if job is None:
        job = await _job(run, runs, storage)
    if job.champion is not None and not await artifacts.ensure(job.champion.artifact_sha256):
        job = job.model_copy(update={"champion": None})
    await runs.keep_job(run, job)
    try:
        outcome, artifact = await trainings.outcome(job)
    except CrashedError as error:
        metrics.CRASHES.labels(run.pipeline).inc()
        if run.crashes + 1 < MAXIMUM_CRASHES:
            _log.warning("the training process of run %s crashed: %s", run.run_id, error)
            await runs.release(run, crashed=True)
            return
        outcome, artifact = _hopeless(error), None
    await _end(run, outcome, artifact, runs, artifacts)
    trainings.forget(run.run_id)


async def _end(run: Run, outcome: Outcome, artifact: bytes | None, runs: Runs, artifacts: Artifacts) -> None:
    if outcome.trained is not None and artifact is not None:
        artifacts.keep(outcome.trained.artifact_sha256, artifact)
    async with runs.conclusion() as work:
        ended = await conclude(run, outcome, artifact, work)
    if not ended:
        _log.warning("run %s was finished by another instance", run.run_id)
        return
    metrics.ENDED_RUNS.labels(run.pipeline, "failed" if outcome.failed else "trained").inc()
    if outcome.failed is not None:
        _log.warning("run %s of %s failed: %s", run.run_id, run.pipeline, outcome.failed.reason)
    else:
        _log.info("run %s of %s gave a model", run.run_id, run.pipeline)


async def _job(run: Run, runs: Runs, storage: Storage) -> Job:
    definition, champion = await runs.definition(run), await runs.champion(run)
    versions = (
        {run.pipeline_version} if champion is None else {run.pipeline_version, champion.pipeline_version}
    )
    return Job(
        run_id=run.run_id,
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        pipeline_sha256=definition.sha256,
        definition=dict(definition.raw),
        cut=run.cut,
        pipeline_time=run.pipeline_time,
        overrides=dict(run.overrides),
        champion=champion,
        segments=await storage.segments_below(run.pipeline, versions, run.cut),
    )


def _hopeless(error: CrashedError) -> Outcome:
    return Outcome(
        failed=Untrainable(
            reason=f"the training process died {MAXIMUM_CRASHES} times: {error}",
            mend="Give the trainer more memory, or shorten training.rows.window; its log has the details",
        )
    )
