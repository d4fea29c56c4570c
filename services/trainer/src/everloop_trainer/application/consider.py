"""Decide whether a pipeline trains now, and fix what it trains on."""

from everloop_schemas.events import RunFailed, RunStarted, Trigger
from everloop_schemas.ids import derived_id
from everloop_schemas.pipeline import Pipeline

from everloop_trainer.application.ports import Decisions, Desk
from everloop_trainer.domain.comparison import MINIMUM_COMPARED_ROWS
from everloop_trainer.domain.policy import Policy, decide
from everloop_trainer.domain.runs import Run, cut_of, needs_of, run_id_of

__all__ = ["consider", "policy_of", "supersede"]


async def consider(pipeline: str, work: Decisions, traceparent: str | None) -> Run | None:
    """Open a run if the policy asks for one: trigger, cut and event are one transaction."""
    desk = await work.desk(pipeline)
    if desk is None:
        return None
    trigger = decide(policy_of(desk.definition.pipeline), desk.situation).trigger
    if trigger is None:
        return None
    run = _run(desk, trigger, traceparent)
    if not await work.open_run(run):
        return None
    work.emit(_started(run), id=derived_id(run.run_id, "run-started"), key=run.pipeline)
    return run


async def supersede(pipeline: str, version: int, work: Decisions) -> None:
    """A new pipeline version ends runs that wait for the older one's vectors; `consider` opens the next."""
    if await work.desk(pipeline) is None:
        return
    for run in await work.supersede(pipeline, version):
        event = RunFailed(
            run_id=run.run_id,
            pipeline=pipeline,
            trigger=run.trigger,
            reason=f"version {version} replaced version {run.pipeline_version} before its vectors came",
            mend="Nothing is to be done: the new version is trained",
        )
        work.emit(event, id=derived_id(run.run_id, "run-failed"), key=pipeline)


def policy_of(pipeline: Pipeline) -> Policy:
    """The pipeline file's rules for training."""
    when = pipeline.training.when
    compared = any(gate.better_than == "champion" for gate in pipeline.gates)
    return Policy(
        new_labelled_rows=when.new_labelled_rows,
        drift=when.drift,
        max_age=when.max_age,
        cooldown=when.cooldown,
        minimum_rows=pipeline.training.minimum_rows,
        compared_rows=MINIMUM_COMPARED_ROWS if compared else 0,
    )


def _run(desk: Desk, trigger: Trigger, traceparent: str | None) -> Run:
    now, manual = desk.situation, desk.situation.manual
    assert now.pipeline_time is not None
    asked = manual is not None and trigger.event_id == manual.event_id
    return Run(
        run_id=run_id_of(trigger.event_id),
        pipeline=desk.definition.pipeline.pipeline,
        pipeline_version=desk.definition.version,
        trigger=trigger,
        overrides=manual.parameters if manual and asked else {},
        cut=cut_of(desk.progress, desk.definition.partitions),
        labels_at_cut=now.labels,
        pipeline_time=now.pipeline_time,
        needs=needs_of(desk.progress),
        traceparent=traceparent,
    )


def _started(run: Run) -> RunStarted:
    return RunStarted(
        run_id=run.run_id,
        pipeline=run.pipeline,
        pipeline_version=run.pipeline_version,
        trigger=run.trigger,
        cut=run.cut,
        started_at=run.pipeline_time,
    )
