"""The monitor's state in Postgres: one transaction, events through its outbox."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

import msgspec
from everloop_kernel.recorder import Transaction
from everloop_schemas.events import DeploymentChanged, DriftDetected, ModelTrained, PipelineDefined

from everloop_monitor import metrics
from everloop_monitor.domain.rows import (
    DayLoss,
    DaySketch,
    LabelRow,
    ModelRow,
    PredictionRow,
    VerdictRow,
    WithdrawnRow,
)
from everloop_monitor.domain.sketch import Sketch, add

__all__ = ["LOSSES", "PostgresWork"]

LOSSES: Final = {
    "binary": "-ln(greatest(1e-7, least(1 - 1e-7, CASE WHEN label > 0.5 THEN output ELSE 1 - output END)))",
    "number": "abs(output - label)",
}
"""The loss of one row, by the label's type: log loss in nats, absolute error in the label's unit."""

PARTS_KEPT: Final = 8
"""Late records add parts to a day that was merged; so few are not worth merging again."""

_KEEP_PREDICTIONS: Final = """
    INSERT INTO predictions (pipeline, id, model_version, arm, pipeline_version, day, event_time,
                             predicted_at, output, trace_id, label)
    SELECT $1, p.*, CASE WHEN NOT labels.withdrawn THEN labels.value END
    FROM unnest($2::text[], $3::int[], $4::text[], $5::int[], $6::date[], $7::timestamptz[],
                $8::timestamptz[], $9::float8[], $10::text[])
         AS p (id, model_version, arm, pipeline_version, day, event_time, predicted_at, output, trace_id)
    LEFT JOIN labels ON labels.pipeline = $1 AND labels.id = p.id
    ON CONFLICT DO NOTHING
    RETURNING label IS NOT NULL AS joined
"""
_KEEP_LABELS: Final = """
    INSERT INTO labels (pipeline, id, day, value, known_at)
    SELECT $1, * FROM unnest($2::text[], $3::date[], $4::float8[], $5::timestamptz[])
    ON CONFLICT (pipeline, id) DO UPDATE
    SET value = excluded.value, known_at = excluded.known_at, day = excluded.day
    WHERE labels.known_at <= excluded.known_at
    RETURNING id, CASE WHEN NOT withdrawn THEN value END AS value
"""
_WITHDRAW: Final = """
    INSERT INTO labels (pipeline, id, day, known_at, withdrawn)
    SELECT $1, *, true FROM unnest($2::text[], $3::date[], $4::timestamptz[])
    ON CONFLICT (pipeline, id) DO UPDATE SET withdrawn = true
"""
_JOIN_LABELS: Final = """
    WITH changed AS (
        UPDATE predictions p SET label = new.value
        FROM unnest($2::text[], $3::float8[]) AS new (id, value)
        WHERE p.pipeline = $1 AND p.id = new.id
        RETURNING old.label IS NULL AND p.label IS NOT NULL AS joined
    )
    SELECT count(*) FILTER (WHERE joined) FROM changed
"""


class PostgresWork:
    """`application.ports.Work` on one kernel transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    async def add_predictions(self, pipeline: str, rows: Sequence[PredictionRow]) -> int:
        """Keep answers, join those whose label is known; returns how many were joined."""
        await self._lock_join(pipeline)
        columns = ([getattr(row, name) for row in rows] for name in _PREDICTION_COLUMNS)
        kept = await self._connection.fetch(_KEEP_PREDICTIONS, pipeline, *columns)
        return sum(row["joined"] for row in kept)

    async def add_labels(self, pipeline: str, rows: Sequence[LabelRow]) -> int:
        """Keep outcomes, join their answers; the newest `known_at` wins. Returns how many were joined."""
        if not rows:
            return 0
        await self._lock_join(pipeline)
        columns = ([getattr(row, name) for row in rows] for name in ("id", "day", "value", "known_at"))
        kept = await self._connection.fetch(_KEEP_LABELS, pipeline, *columns)
        ids, values = [row["id"] for row in kept], [row["value"] for row in kept]
        return int(await self._connection.fetchval(_JOIN_LABELS, pipeline, ids, values))

    async def withdraw(self, pipeline: str, rows: Sequence[WithdrawnRow]) -> None:
        """Separate answers from outcomes, for good: their observations are retracted."""
        if not rows:
            return
        await self._lock_join(pipeline)
        columns = [[getattr(row, name) for row in rows] for name in ("id", "day", "known_at")]
        await self._connection.execute(_WITHDRAW, pipeline, *columns)
        await self._connection.execute(_JOIN_LABELS, pipeline, columns[0], [None] * len(rows))

    async def _lock_join(self, pipeline: str) -> None:
        """Either side of a join must see the other's rows, so one of them waits."""
        await self._connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"everloop-monitor-join/{pipeline}"
        )

    async def add_sketches(self, pipeline: str, parts: Sequence[DaySketch]) -> None:
        """Append parts of days."""
        await self._connection.executemany(
            "INSERT INTO sketches (pipeline, pipeline_version, day, rows, sketch)"
            " VALUES ($1, $2, $3, $4, $5)",
            [(pipeline, p.pipeline_version, p.day, p.rows, _pack(p.features)) for p in parts],
        )

    async def days(
        self, pipeline: str, version: int, first: date, last: date
    ) -> Mapping[date, Sequence[Sketch]]:
        """The sketches of whole days, a feature each in the order of the vector, parts added up."""
        rows = await self._connection.fetch(
            "SELECT day, sketch FROM sketches WHERE pipeline = $1 AND pipeline_version = $2"
            " AND day BETWEEN $3 AND $4",
            pipeline,
            version,
            first,
            last,
        )
        parts = defaultdict(list)
        for row in rows:
            parts[row["day"]].append(_unpack(row["sketch"]))
        return {
            day: [add(columns) for columns in zip(*sketches, strict=True)]
            for day, sketches in sorted(parts.items())
        }

    async def merge_days(self, pipeline: str, version: int, last: date) -> None:
        """Keep one sketch for each finished day instead of its parts."""
        scattered = await self._connection.fetch(
            "SELECT day FROM sketches WHERE pipeline = $1 AND pipeline_version = $2 AND day <= $3"
            " GROUP BY day HAVING count(*) > $4",
            pipeline,
            version,
            last,
            PARTS_KEPT,
        )
        for row in scattered:
            await self._merge(pipeline, version, row["day"])

    async def _merge(self, pipeline: str, version: int, day: date) -> None:
        parts = await self._connection.fetch(
            "DELETE FROM sketches WHERE pipeline = $1 AND pipeline_version = $2 AND day = $3"
            " RETURNING rows, sketch",
            pipeline,
            version,
            day,
        )
        columns = zip(*(_unpack(part["sketch"]) for part in parts), strict=True)
        rows = sum(part["rows"] for part in parts)
        await self.add_sketches(pipeline, [DaySketch(version, day, rows, [add(c) for c in columns])])

    async def reach(self, pipeline: str, stream: str, partition: int, known_at: datetime) -> None:
        """Note how far a partition has come in pipeline time."""
        await self._connection.execute(
            "INSERT INTO progress VALUES ($1, $2, $3, $4) ON CONFLICT (pipeline, stream, partition)"
            " DO UPDATE SET known_at = greatest(progress.known_at, excluded.known_at)",
            pipeline,
            stream,
            partition,
            known_at,
        )

    async def reached(self, pipeline: str, stream: str) -> Sequence[datetime]:
        """How far each partition has come."""
        rows = await self._connection.fetch(
            "SELECT known_at FROM progress WHERE pipeline = $1 AND stream = $2", pipeline, stream
        )
        return [row["known_at"] for row in rows]

    async def definition(self, pipeline: str, version: int | None = None) -> Mapping[str, Any] | None:
        """A version's definition, the newest by default."""
        found = await self._connection.fetchval(
            "SELECT definition FROM pipelines WHERE pipeline = $1 AND ($2::int IS NULL OR version = $2)"
            " ORDER BY version DESC LIMIT 1",
            pipeline,
            version,
        )
        return None if found is None else json.loads(found)

    async def add_pipeline(self, event: PipelineDefined) -> None:
        """Keep a version."""
        await self._connection.execute(
            "INSERT INTO pipelines VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            event.pipeline,
            event.version,
            json.dumps(event.definition),
        )

    async def add_model(self, event: ModelTrained) -> None:
        """Keep what a model was trained on."""
        await self._connection.execute(
            "INSERT INTO models VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            event.pipeline,
            event.model_version,
            event.pipeline_version,
            event.dataset.last_event_time,
        )

    async def set_champion(self, event: DeploymentChanged) -> None:
        """Follow the deployment, never backwards."""
        await self._connection.execute(
            "INSERT INTO champions VALUES ($1, $2, $3) ON CONFLICT (pipeline) DO UPDATE"
            " SET revision = excluded.revision, model_version = excluded.model_version"
            " WHERE champions.revision < excluded.revision",
            event.pipeline,
            event.revision,
            event.champion.model_version if event.champion else None,
        )

    async def champions(self) -> Sequence[ModelRow]:
        """Every pipeline's champion, locked against another judge."""
        rows = await self._connection.fetch(
            "SELECT c.pipeline, m.model_version, m.pipeline_version, m.last_event_time FROM champions c"
            " JOIN models m USING (pipeline, model_version) ORDER BY pipeline FOR UPDATE OF c SKIP LOCKED"
        )
        return [ModelRow(**row) for row in rows]

    async def verdict(self, model: ModelRow, kind: str) -> VerdictRow | None:
        """The newest verdict of a kind on a model."""
        row = await self._connection.fetchrow(
            "SELECT kind, day, value, threshold, detected, evidence, alarmed FROM verdicts"
            " WHERE pipeline = $1 AND model_version = $2 AND kind = $3",
            model.pipeline,
            model.model_version,
            kind,
        )
        return row and VerdictRow(**{**row, "evidence": json.loads(row["evidence"])})

    async def keep_verdict(self, model: ModelRow, verdict: VerdictRow) -> None:
        """Replace the verdict of its kind."""
        await self._connection.execute(
            "INSERT INTO verdicts VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
            " ON CONFLICT (pipeline, model_version, kind) DO UPDATE SET day = excluded.day,"
            " value = excluded.value, threshold = excluded.threshold, detected = excluded.detected,"
            " evidence = excluded.evidence, alarmed = excluded.alarmed",
            model.pipeline,
            model.model_version,
            verdict.kind,
            verdict.day,
            min(verdict.value, 1e300),
            verdict.threshold,
            verdict.detected,
            json.dumps(verdict.evidence),
            verdict.alarmed,
        )
        labels = (model.pipeline, str(model.model_version), verdict.kind)
        metrics.DRIFT_STATISTIC.labels(*labels).set(verdict.value)

    async def losses(self, model: ModelRow, task: str, last: date) -> Sequence[DayLoss]:
        """The model's daily losses as champion up to a day, oldest first."""
        rows = await self._connection.fetch(
            f"SELECT day, count(label) AS rows, coalesce(avg({LOSSES[task]}), 0) AS loss FROM predictions"  # noqa: S608 - an expression of ours
            " WHERE pipeline = $1 AND model_version = $2 AND arm = 'champion' AND day <= $3"
            " GROUP BY day ORDER BY day",
            model.pipeline,
            model.model_version,
            last,
        )
        losses = [DayLoss(**row) for row in rows]
        if losses:
            metrics.LOSS.labels(model.pipeline, str(model.model_version)).set(losses[-1].loss)
        return losses

    def emit_drift(self, event: DriftDetected) -> None:
        """Publish after the commit."""
        self._transaction.emit(event, id=event.id, key=event.pipeline)
        metrics.DRIFT_DETECTED.labels(event.pipeline, event.kind).inc()


_PREDICTION_COLUMNS = (
    "id model_version arm pipeline_version day event_time predicted_at output trace_id".split()  # noqa: SIM905 - nine lines otherwise
)


def _pack(features: Sequence[Sketch]) -> bytes:
    """MessagePack: one pair of lists a feature, values and how often each occurs."""
    return msgspec.msgpack.encode([[list(sketch), list(sketch.values())] for sketch in features])


def _unpack(packed: bytes) -> list[Sketch]:
    return [dict(zip(values, times, strict=True)) for values, times in msgspec.msgpack.decode(packed)]
