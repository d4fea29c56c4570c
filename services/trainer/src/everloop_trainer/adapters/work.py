"""The trainer's state within one Postgres transaction."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from everloop_kernel import telemetry
from everloop_kernel.recorder import Transaction
from everloop_schemas.events import (
    DataArrived,
    DeploymentChanged,
    DriftDetected,
    Event,
    ModelApproved,
    ModelRejected,
    PipelineDefined,
    QualityJudged,
)

from everloop_trainer import metrics
from everloop_trainer.adapters.rows import definition_of, run_of
from everloop_trainer.adapters.situation import situation
from everloop_trainer.application.ports import Desk, LogBatch, StagedRow
from everloop_trainer.domain.runs import Progress, Run

__all__ = ["RUNS_CHANNEL", "PostgresWork"]

RUNS_CHANNEL = "everloop_trainer_runs"
"""NOTIFY tells every trainer instance that there is a run."""

_STAGED = (
    "pipeline",
    "kind",
    "version",
    "partition",
    "log_offset",
    "label",
    "id",
    "event_time_us",
    "known_at_us",
    "data",
)
_LOG_PROGRESS = """
INSERT INTO log_progress AS p VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (pipeline, partition) DO UPDATE SET
    next_offset = greatest(p.next_offset, excluded.next_offset),
    last_observation = greatest(p.last_observation, excluded.last_observation),
    observations = p.observations + excluded.observations,
    labels = p.labels + excluded.labels,
    known_at = greatest(p.known_at, excluded.known_at)
"""
_VECTOR_PROGRESS = """
INSERT INTO vector_progress AS p VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (pipeline, version, partition) DO UPDATE SET
    last_offset = excluded.last_offset, vectors = p.vectors + excluded.vectors,
    traceparent = excluded.traceparent
"""
_ANSWERED_ARRIVALS = """
DELETE FROM arrivals a USING log_progress p
WHERE a.pipeline = $1 AND p.pipeline = a.pipeline AND p.partition = a.partition AND a.labels <= p.labels
"""
_ANNOUNCE = """
INSERT INTO announced AS a VALUES ($1, $2, $3)
ON CONFLICT (pipeline, partition) DO UPDATE SET records = greatest(a.records, excluded.records)
"""
_BLOCK = """
INSERT INTO data_blocks AS b VALUES ($1, $2, $3)
ON CONFLICT (pipeline) DO UPDATE SET revision = excluded.revision, reason = excluded.reason
WHERE b.revision < excluded.revision
"""
_SUPERSEDE = """
UPDATE runs SET state = 'failed', ended_at = now()
WHERE pipeline = $1 AND pipeline_version < $2 AND state = 'waiting' RETURNING *
"""
_OPEN_RUN = """
INSERT INTO runs (run_id, pipeline, pipeline_version, trigger, overrides, cut, labels_at_cut, pipeline_time,
    traceparent, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'waiting') ON CONFLICT (run_id) DO NOTHING RETURNING run_id
"""


class PostgresWork:
    """Recording and Decisions on one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    def emit(self, event: Event, *, id: str, key: str) -> None:  # noqa: A002 - the CloudEvents attribute's name
        """Publish with the transaction."""
        self._transaction.emit(event, id=id, key=key)

    async def add_records(self, pipeline: str, batch: LogBatch, rows: Sequence[StagedRow]) -> None:
        """Stage records and move the partition's progress."""
        new = batch.progress
        await self._stage(pipeline, "records", 0, new.partition, rows)
        await self._connection.execute(
            _LOG_PROGRESS,
            pipeline,
            new.partition,
            new.next_offset,
            new.last_observation,
            batch.observations,
            new.labels,
            new.known_at,
        )

    async def vectors_seen(self, pipeline: str, version: int, partition: int) -> int:
        """The highest log offset whose vector is kept."""
        last: int | None = await self._connection.fetchval(
            "SELECT last_offset FROM vector_progress WHERE pipeline = $1 AND version = $2 AND partition = $3",
            pipeline,
            version,
            partition,
        )
        return -1 if last is None else last

    async def add_vectors(
        self, pipeline: str, version: int, partition: int, rows: Sequence[StagedRow]
    ) -> None:
        """Stage vectors and move their progress."""
        await self._stage(pipeline, "vectors", version, partition, rows)
        last, count = rows[-1].offset, len(rows)
        await self._connection.execute(
            _VECTOR_PROGRESS, pipeline, version, partition, last, count, telemetry.traceparent()
        )

    async def _stage(
        self, pipeline: str, kind: str, version: int, partition: int, rows: Sequence[StagedRow]
    ) -> None:
        await self._connection.copy_records_to_table(
            "staged", records=((pipeline, kind, version, partition, *row) for row in rows), columns=_STAGED
        )

    async def desk(self, pipeline: str) -> Desk | None:
        """Lock the pipeline's row and read what a decision needs."""
        fetchrow = self._connection.fetchrow
        await self._connection.execute(
            "INSERT INTO desks VALUES ($1) ON CONFLICT (pipeline) DO UPDATE SET pipeline = excluded.pipeline",
            pipeline,
        )
        row = await fetchrow(
            "SELECT * FROM pipelines WHERE pipeline = $1 ORDER BY version DESC LIMIT 1", pipeline
        )
        if row is None:
            return None
        definition, progress = definition_of(row), await self._progress(pipeline)
        return Desk(definition, await situation(self._connection, definition, progress), progress)

    async def _progress(self, pipeline: str) -> dict[int, Progress]:
        rows = await self._connection.fetch("SELECT * FROM log_progress WHERE pipeline = $1", pipeline)
        return {
            row["partition"]: Progress(
                row["partition"], row["next_offset"], row["last_observation"], row["labels"], row["known_at"]
            )
            for row in rows
        }

    async def open_run(self, run: Run) -> bool:
        """Insert the run, unless its trigger had one; delete what it answers; tell the runners."""
        opened = await self._connection.fetchval(
            _OPEN_RUN,
            run.run_id,
            run.pipeline,
            run.pipeline_version,
            run.trigger.model_dump_json(),
            json.dumps(dict(run.overrides), sort_keys=True),
            json.dumps(run.cut),
            run.labels_at_cut,
            run.pipeline_time,
            run.traceparent,
        )
        await self._clear_desk(run)
        if opened is None:
            return False
        needs = [(run.run_id, partition, last) for partition, last in run.needs.items()]
        await self._connection.executemany("INSERT INTO run_needs VALUES ($1, $2, $3)", needs)
        await self._connection.execute("SELECT pg_notify($1, '')", RUNS_CHANNEL)
        metrics.OPENED_RUNS.labels(run.pipeline, run.trigger.kind).inc()
        return True

    async def _clear_desk(self, run: Run) -> None:
        """A run answers its own trigger and, unless it has overrides of its own, all that came before."""
        await self._connection.execute("DELETE FROM signals WHERE event_id = $1", run.trigger.event_id)
        if not run.overrides:
            await self._connection.execute(
                "DELETE FROM signals WHERE pipeline = $1 AND kind = 'drift'", run.pipeline
            )
            await self._connection.execute(_ANSWERED_ARRIVALS, run.pipeline)

    async def supersede(self, pipeline: str, version: int) -> list[Run]:
        """End what waits for vectors of an older version."""
        rows = await self._connection.fetch(_SUPERSEDE, pipeline, version)
        return [run_of(row) for row in rows]

    async def define(self, event: PipelineDefined, event_id: str) -> None:
        """Keep a pipeline version."""
        await self._connection.execute(
            "INSERT INTO pipelines VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            event.pipeline,
            event.version,
            json.dumps(event.definition),
            event.sha256,
            event.partitions,
            event_id,
        )

    async def arrive(self, event: DataArrived, event_id: str) -> None:
        """Keep a new-data event until a run has answered it."""
        await self._connection.execute(
            "INSERT INTO arrivals (event_id, pipeline, partition, labels) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING",
            event_id,
            event.pipeline,
            event.partition,
            event.labels,
        )
        records = event.observations + event.labels
        await self._connection.execute(_ANNOUNCE, event.pipeline, event.partition, records)
        await self.block(event.pipeline, event.quality_revision, event.blocked_reason)

    async def block(self, pipeline: str, revision: int, reason: str | None) -> None:
        """Keep which data gates are broken (None: none is); what is older than is known changes nothing."""
        await self._connection.execute(_BLOCK, pipeline, revision, reason)

    async def quality(self, event: QualityJudged) -> None:
        """Keep what a verdict on the data means for training."""
        await self.block(event.pipeline, event.revision, event.blocked_reason)

    async def drift(self, event: DriftDetected, event_id: str) -> None:
        """Keep a drift event until a run has answered it."""
        await self.signal(
            event.pipeline, "drift", event_id, {"kind": event.kind, "model_version": event.model_version}
        )

    async def signal(self, pipeline: str, kind: str, event_id: str, body: Mapping[str, Any]) -> None:
        """Keep what may start a run."""
        await self._connection.execute(
            "INSERT INTO signals (event_id, pipeline, kind, body) VALUES ($1, $2, $3, $4)"
            " ON CONFLICT DO NOTHING",
            event_id,
            pipeline,
            kind,
            json.dumps(body),
        )

    async def deploy(self, event: DeploymentChanged) -> None:
        """Keep which version is the champion; an older revision changes nothing."""
        champion = event.champion
        await self._connection.execute(
            "INSERT INTO champions AS c VALUES ($1, $2, $3, $4, $5) ON CONFLICT (pipeline) DO UPDATE SET"
            " revision = excluded.revision, model_version = excluded.model_version,"
            " pipeline_version = excluded.pipeline_version, artifact_sha256 = excluded.artifact_sha256"
            " WHERE c.revision < excluded.revision",
            event.pipeline,
            event.revision,
            champion.model_version if champion else None,
            champion.pipeline_version if champion else None,
            champion.artifact.sha256 if champion else None,
        )

    async def judge(self, event: ModelApproved | ModelRejected) -> None:
        """Keep the registry's verdict beside the model."""
        verdict = "approved" if isinstance(event, ModelApproved) else "rejected"
        await self._connection.execute(
            "UPDATE models SET verdict = $3 WHERE pipeline = $1 AND model_version = $2",
            event.pipeline,
            event.model_version,
            verdict,
        )
