"""Keep what serving answered, what came of it, and what the vectors of each day looked like."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from everloop_monitor import metrics
from everloop_monitor.application.ports import Work
from everloop_monitor.domain.days import day_of
from everloop_monitor.domain.rows import DaySketch, LabelRow, PredictionRow, WithdrawnRow
from everloop_monitor.domain.sketch import Value, sketch

__all__ = [
    "LabelValue",
    "Outcome",
    "Vector",
    "Withdrawal",
    "record_labels",
    "record_predictions",
    "record_retractions",
    "record_vectors",
]

LabelValue = Callable[[Mapping[str, Any]], float | None]
Outcome = tuple[str, datetime, datetime, Mapping[str, Any]]
"""A label: id, event time, known at, fields."""
Withdrawal = tuple[str, datetime, datetime]
"""A retraction: id, event time, known at."""
Vector = tuple[int, datetime, Sequence[Value]]
"""Pipeline version, event time, values."""


async def record_predictions(work: Work, pipeline: str, rows: Sequence[PredictionRow]) -> None:
    """Keep answers; those whose outcome came first are joined at once."""
    joined = await work.add_predictions(pipeline, rows)
    metrics.PREDICTIONS.labels(pipeline).inc(len(rows))
    metrics.JOINED.labels(pipeline).inc(joined)


async def record_labels(work: Work, pipeline: str, outcomes: Sequence[Outcome], value_of: LabelValue) -> None:
    """Keep outcomes as numbers and join them; the newest known wins, also where it has no value."""
    valued = [(i, at, known, value_of(fields)) for i, at, known, fields in outcomes]
    newest: dict[str, LabelRow] = {}
    for identity, at, known, value in valued:
        before = newest.get(identity)
        if before is None or known >= before.known_at:
            newest[identity] = LabelRow(identity, day_of(at), value, known)
    joined = await work.add_labels(pipeline, list(newest.values()))
    metrics.JOINED.labels(pipeline).inc(joined)


async def record_retractions(work: Work, pipeline: str, gone: Sequence[Withdrawal]) -> None:
    """Forget the outcomes of retracted observations: their answers are judged no longer."""
    rows = {identity: WithdrawnRow(identity, day_of(at), known) for identity, at, known in gone}
    await work.withdraw(pipeline, list(rows.values()))


async def record_vectors(work: Work, pipeline: str, vectors: Sequence[Vector]) -> None:
    """Add a batch of vectors to the sketches of their days."""
    days: dict[tuple[int, date], list[Sequence[Value]]] = defaultdict(list)
    for version, at, values in vectors:
        days[version, day_of(at)].append(values)
    parts = [
        DaySketch(version, day, len(rows), [sketch(column) for column in zip(*rows, strict=True)])
        for (version, day), rows in days.items()
    ]
    await work.add_sketches(pipeline, parts)
