"""Judge every champion on the days that are over; say so when the world has moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """Judge each pipeline's champion, once a day of pipeline time, by its features and by its loss.

    After an alarm the kind rests for `monitor.reference_days`; then the days since the alarm are judged.
    """
    for model in await work.champions():
        definition = await work.definition(model.pipeline, model.pipeline_version)
        if definition is not None:
            pipeline = from_definition(dict(definition))
            await _judge_features(work, model, pipeline)
            await _judge_loss(work, model, pipeline)


async def _judge_features(work: Work, model: ModelRow, pipeline: Pipeline) -> None:
    reached = watermark(await work.reached(model.pipeline, "vectors"))
    day = last_complete_day(reached) if reached else None
    known = await work.verdict(model, "feature")
    if day is None or not _due(known, day, pipeline):
        return
    trained = day_of(model.last_event_time)
    first = trained - timedelta(days=pipeline.monitor.reference_days)
    days = await work.days(model.pipeline, model.pipeline_version, first, day)
    since = trained if known is None or known.alarmed is None else max(trained, known.alarmed)
    drift = _compare_days(pipeline, days, trained, since=since, last=day)
    if drift is not None:
        await _conclude(work, model, known, _Look("feature", day, since, drift))
    await work.merge_days(model.pipeline, model.pipeline_version, day)


def _compare_days(pipeline: Pipeline, days: Days, trained: date, *, since: date, last: date) -> Drift | None:
    """Whole days before training ended are the reference; those after `since` are compared with them."""
    reference = [sketches for day, sketches in sorted(days.items()) if day < trained]
    oldest = last - timedelta(days=LOOK_BACK_DAYS)
    current = [sketches for day, sketches in sorted(days.items()) if day > max(since, oldest)]
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
    known = await work.verdict(model, "loss")
    if day is None or not _due(known, day, pipeline):
        return
    # the first day is left out: the model answered only from its deployment on
    losses = (await work.losses(model, pipeline.label.type, day))[1:]
    full = [loss for loss in losses if loss.rows >= LOSS_DAY_ROWS]
    reference, new = full[:LOSS_REFERENCE_DAYS], full[LOSS_REFERENCE_DAYS:]
    if known is not None and known.alarmed is not None:
        new = [loss for loss in new if loss.day > known.alarmed]
    drift = loss_drift(
        _values(reference), _values(new), false_alarms_per_100_days=pipeline.monitor.false_alarms_per_100_days
    )
    if drift is not None:
        since = known.alarmed if known is not None and known.alarmed is not None else reference[-1].day
        await _conclude(work, model, known, _Look("loss", day, since, drift))


def _values(losses: Sequence[DayLoss]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([max(loss.loss, 1e-9) for loss in losses], dtype=np.float64)


def _due(known: VerdictRow | None, day: date, pipeline: Pipeline) -> bool:
    return known is None or known.due(day, timedelta(days=pipeline.monitor.reference_days))


@dataclass(frozen=True, slots=True)
class _Look:
    """One judgement: what the days after `since`, up to `day`, say."""

    kind: Literal["feature", "loss"]
    day: date
    since: date
    drift: Drift


async def _conclude(work: Work, model: ModelRow, known: VerdictRow | None, look: _Look) -> None:
    drift, evidence = look.drift, _evidence(look.drift)
    before = None if known is None else known.alarmed
    alarmed = look.day if drift.detected else before
    dumped = [item.model_dump() for item in evidence]
    verdict = VerdictRow(look.kind, look.day, drift.value, drift.threshold, drift.detected, dumped, alarmed)
    await work.keep_verdict(model, verdict)
    if drift.detected:
        work.emit_drift(_event(model, look, evidence, again=before is not None))


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


def _event(model: ModelRow, look: _Look, evidence: list[DriftEvidence], *, again: bool) -> DriftDetected:
    """One alarm: its id is derived from model and kind, and from the day where it was raised before."""
    source = f"{model.pipeline}/{model.model_version}" + (f"/{look.day}" if again else "")
    return DriftDetected(
        id=derived_id(source, f"drift-{look.kind}"),
        pipeline=model.pipeline,
        model_version=model.model_version,
        kind=look.kind,
        evidence=evidence,
        window_start=_midnight(look.since + timedelta(days=1)),
        window_end=_midnight(look.day + timedelta(days=1)),
        detected_at=_midnight(look.day + timedelta(days=1)),
    )


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)
