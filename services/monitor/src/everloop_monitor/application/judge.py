"""Judge every champion on the days that are over; say so when the world has moved."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

import numpy as np
from everloop_features import compile as compile_pipeline
from everloop_schemas.events import DriftDetected, DriftEvidence
from everloop_schemas.ids import derived_id
from everloop_schemas.pipeline import Pipeline, from_definition

from everloop_monitor.application.ports import Work
from everloop_monitor.domain.bins import Kind, count, freeze
from everloop_monitor.domain.days import day_of, last_complete_day, watermark
from everloop_monitor.domain.drift import Drift, feature_drift, loss_drift
from everloop_monitor.domain.rows import DayLoss, ModelRow, VerdictRow
from everloop_monitor.domain.sketch import Sketch, add

__all__ = ["judge_champions"]

LOSS_REFERENCE_DAYS: Final = 7
LOSS_DAY_ROWS: Final = 30
"""A day with fewer joined answers says too little about the loss."""
LOOK_BACK_DAYS: Final = 120
EVIDENCE_SHOWN: Final = 10

Days = Mapping[date, Sequence[Sketch]]


async def judge_champions(work: Work) -> None:
    """Judge each pipeline's champion, once a day of pipeline time, by its features and by its loss."""
    for model in await work.champions():
        definition = await work.definition(model.pipeline, model.pipeline_version)
        if definition is not None:
            pipeline = from_definition(dict(definition))
            await _judge_features(work, model, pipeline)
            await _judge_loss(work, model, pipeline)


async def _judge_features(work: Work, model: ModelRow, pipeline: Pipeline) -> None:
    reached = watermark(await work.reached(model.pipeline, "vectors"))
    day = last_complete_day(reached) if reached else None
    if day is None or not await _due(work, model, "feature", day):
        return
    trained = day_of(model.last_event_time)
    first = trained - timedelta(days=pipeline.monitor.reference_days)
    days = await work.days(model.pipeline, model.pipeline_version, first, day)
    drift = _compare_days(pipeline, days, trained, day)
    if drift is not None:
        await _conclude(work, model, "feature", day=day, since=trained, drift=drift)
    await work.merge_days(model.pipeline, model.pipeline_version, day)


def _compare_days(pipeline: Pipeline, days: Days, trained: date, last: date) -> Drift | None:
    """Whole days before training ended are the reference; those after it are compared with them."""
    reference = [sketches for day, sketches in sorted(days.items()) if day < trained]
    oldest = last - timedelta(days=LOOK_BACK_DAYS)
    current = [sketches for day, sketches in sorted(days.items()) if day > max(trained, oldest)]
    counts = {}
    for position, (name, kind) in enumerate(_kinds(pipeline)):
        bins = freeze(kind, add(day[position] for day in reference))
        counts[name] = [
            np.array([count(bins, day[position]) for day in side]).reshape(-1, bins.size)
            for side in (reference, current)
        ]
    return feature_drift(
        {name: sides[0] for name, sides in counts.items()},
        {name: sides[1] for name, sides in counts.items()},
        false_alarms_per_100_days=pipeline.monitor.false_alarms_per_100_days,
    )


def _kinds(pipeline: Pipeline) -> list[tuple[str, Kind]]:
    compiled = compile_pipeline(pipeline)
    if isinstance(compiled, list):
        raise TypeError(
            f"{pipeline.pipeline} was defined, but its features do not compile: {compiled[0].message}"
        )
    return list(zip(compiled.names, compiled.types, strict=True))


async def _judge_loss(work: Work, model: ModelRow, pipeline: Pipeline) -> None:
    reached = watermark(await work.reached(model.pipeline, "log"))
    day = last_complete_day(reached, pipeline.label.expected_after) if reached else None
    if day is None or not await _due(work, model, "loss", day):
        return
    # the first day is left out: the model answered only from its deployment on
    losses = (await work.losses(model, pipeline.label.type, day))[1:]
    full = [loss for loss in losses if loss.rows >= LOSS_DAY_ROWS]
    known, new = full[:LOSS_REFERENCE_DAYS], full[LOSS_REFERENCE_DAYS:]
    drift = loss_drift(
        _values(known), _values(new), false_alarms_per_100_days=pipeline.monitor.false_alarms_per_100_days
    )
    if drift is not None:
        await _conclude(work, model, "loss", day=day, since=known[-1].day, drift=drift)


def _values(losses: Sequence[DayLoss]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([max(loss.loss, 1e-9) for loss in losses], dtype=np.float64)


async def _due(work: Work, model: ModelRow, kind: str, day: date) -> bool:
    known = await work.verdict(model, kind)
    return known is None or (known.day < day and not known.detected)


async def _conclude(
    work: Work, model: ModelRow, kind: Literal["feature", "loss"], *, day: date, since: date, drift: Drift
) -> None:
    evidence = _evidence(drift)
    dumped = [item.model_dump() for item in evidence]
    await work.keep_verdict(
        model, VerdictRow(kind, day, drift.value, drift.threshold, drift.detected, dumped)
    )
    if drift.detected:
        work.emit_drift(_event(model, kind, day, since, evidence))


def _evidence(drift: Drift) -> list[DriftEvidence]:
    return [
        DriftEvidence(
            feature=signal.feature,
            statistic=signal.statistic,
            value=min(signal.value, 1e300),
            threshold=drift.threshold,
            reference_days=drift.reference_days,
            current_days=drift.current_days,
        )
        for signal in drift.signals[:EVIDENCE_SHOWN]
    ]


def _event(
    model: ModelRow, kind: Literal["feature", "loss"], day: date, since: date, evidence: list[DriftEvidence]
) -> DriftDetected:
    """One a model and kind: its id is derived from these, so it cannot be raised twice."""
    return DriftDetected(
        id=derived_id(f"{model.pipeline}/{model.model_version}", f"drift-{kind}"),
        pipeline=model.pipeline,
        model_version=model.model_version,
        kind=kind,
        evidence=evidence,
        window_start=_midnight(since + timedelta(days=1)),
        window_end=_midnight(day + timedelta(days=1)),
        detected_at=_midnight(day + timedelta(days=1)),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
