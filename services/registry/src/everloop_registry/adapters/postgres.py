"""The registry's state in Postgres: one transaction, events through its outbox."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

from everloop_kernel.recorder import Transaction
from everloop_kernel.recorder.pool import IDLE_IN_TRANSACTION_SECONDS
from everloop_schemas import canonical
from everloop_schemas.events import DataProfiled, Event, GateResult, ModelLoaded, ModelRef, ModelTrained

from everloop_registry.domain.audit import AuditEntry, Deed
from everloop_registry.domain.deployment import Deployment
from everloop_registry.domain.models import Decision, Model
from everloop_registry.domain.pipelines import PipelineVersion

__all__ = ["PostgresWork"]

_BEAT_SECONDS = IDLE_IN_TRANSACTION_SECONDS / 4

Row = Any
"""An asyncpg record: columns by name."""


class PostgresWork:
    """`application.ports.Work` on one kernel transaction, and what reading pages need."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connection = transaction.connection

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Let the server see that this process lives: it ends the transactions of those that stand still."""
        done = asyncio.Event()
        heartbeat = asyncio.create_task(self._beat_until(done))
        try:
            yield
        finally:
            done.set()
            await heartbeat

    async def _beat_until(self, done: asyncio.Event) -> None:
        while not done.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), _BEAT_SECONDS)
                return
            await self._connection.execute("SELECT 1")

    async def lock(self, pipeline: str) -> None:
        """Take the pipeline's advisory lock until the transaction ends."""
        await self._connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"everloop-registry/{pipeline}"
        )

    async def pipelines(self) -> list[PipelineVersion]:
        """The newest version of every pipeline, by name."""
        rows = await self._connection.fetch(
            "SELECT DISTINCT ON (pipeline) * FROM pipelines ORDER BY pipeline, version DESC"
        )
        return [_pipeline(row) for row in rows]

    async def pipeline_versions(self, pipeline: str) -> list[PipelineVersion]:
        """Every version of a pipeline, the newest first."""
        rows = await self._connection.fetch(
            "SELECT * FROM pipelines WHERE pipeline = $1 ORDER BY version DESC", pipeline
        )
        return [_pipeline(row) for row in rows]

    async def current_pipeline(self, pipeline: str) -> PipelineVersion | None:
        """The newest version of a pipeline."""
        row = await self._connection.fetchrow(
            "SELECT * FROM pipelines WHERE pipeline = $1 ORDER BY version DESC LIMIT 1", pipeline
        )
        return _pipeline(row) if row else None

    async def pipeline_version(self, pipeline: str, version: int) -> PipelineVersion | None:
        """One version of a pipeline."""
        row = await self._connection.fetchrow(
            "SELECT * FROM pipelines WHERE pipeline = $1 AND version = $2", pipeline, version
        )
        return _pipeline(row) if row else None

    async def add_pipeline_version(self, version: PipelineVersion) -> None:
        """Keep a new version; a number that is taken is an error."""
        await self._connection.execute(
            "INSERT INTO pipelines VALUES ($1, $2, $3, $4, $5, $6, $7)",
            version.pipeline,
            version.version,
            _json(version.definition),
            version.sha256,
            version.partitions,
            version.defined_at,
            version.defined_by,
        )

    async def models(self, pipeline: str) -> list[Model]:
        """Every model version of a pipeline, the newest first."""
        rows = await self._connection.fetch(
            "SELECT * FROM models WHERE pipeline = $1 ORDER BY model_version DESC", pipeline
        )
        return [_model(row) for row in rows]

    async def model(self, pipeline: str, version: int) -> Model | None:
        """One model version."""
        row = await self._connection.fetchrow(
            "SELECT * FROM models WHERE pipeline = $1 AND model_version = $2", pipeline, version
        )
        return _model(row) if row else None

    async def save_model(self, model: Model) -> None:
        """Keep a version, or its newer decision; what was trained and measured never changes."""
        await self._connection.execute(
            """INSERT INTO models VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT (pipeline, model_version) DO UPDATE SET state = EXCLUDED.state,
                 decided_by = EXCLUDED.decided_by, decided_at = EXCLUDED.decided_at,
                 reason = EXCLUDED.reason""",
            model.pipeline,
            model.version,
            model.trained.model_dump_json(),
            _json([gate.model_dump(mode="json") for gate in model.gates]),
            model.state,
            model.decision.by,
            model.decision.at,
            model.decision.reason,
        )

    async def deployment(self, pipeline: str) -> Deployment:
        """What is deployed; revision 0 when nothing ever was."""
        row = await self._connection.fetchrow("SELECT * FROM deployments WHERE pipeline = $1", pipeline)
        return _deployment(row) if row else Deployment(pipeline)

    async def save_deployment(self, deployment: Deployment) -> None:
        """Keep the next revision."""
        await self._connection.execute(
            """INSERT INTO deployments VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
               ON CONFLICT (pipeline) DO UPDATE SET revision = EXCLUDED.revision,
                 champion = EXCLUDED.champion, challenger = EXCLUDED.challenger,
                 challenger_share = EXCLUDED.challenger_share, former = EXCLUDED.former,
                 pinned = EXCLUDED.pinned, rolled_back = EXCLUDED.rolled_back""",
            deployment.pipeline,
            deployment.revision,
            _ref_json(deployment.champion),
            _ref_json(deployment.challenger),
            deployment.challenger_share,
            _json([ref.model_dump(mode="json") for ref in deployment.former]),
            _json([ref.model_dump(mode="json") for ref in deployment.pinned]),
            deployment.rolled_back,
        )

    async def last_audit(self, pipeline: str) -> AuditEntry | None:
        """The newest entry of the pipeline's audit trail."""
        row = await self._connection.fetchrow(
            "SELECT * FROM audit WHERE pipeline = $1 ORDER BY sequence DESC LIMIT 1", pipeline
        )
        return _audit(row) if row else None

    async def audit(self, pipeline: str) -> list[AuditEntry]:
        """The pipeline's whole audit trail, the oldest entry first."""
        rows = await self._connection.fetch(
            "SELECT * FROM audit WHERE pipeline = $1 ORDER BY sequence", pipeline
        )
        return [_audit(row) for row in rows]

    async def add_audit(self, entry: AuditEntry) -> None:
        """Keep an entry. Its details are kept as the very text that was hashed."""
        await self._connection.execute(
            "INSERT INTO audit VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            entry.deed.pipeline,
            entry.sequence,
            entry.at,
            entry.deed.actor,
            entry.deed.action,
            entry.deed.model_version,
            _json(entry.deed.details),
            entry.previous_sha256,
            entry.sha256,
        )

    async def loads(self, pipeline: str) -> list[ModelLoaded]:
        """What serving instances said about loading, the newest first (by wall clock)."""
        rows = await self._connection.fetch(
            "SELECT event FROM loads WHERE pipeline = $1 ORDER BY loaded_at DESC, id", pipeline
        )
        return [ModelLoaded.model_validate_json(row["event"]) for row in rows]

    async def add_load(self, loaded: ModelLoaded) -> None:
        """Keep what an instance said; twice the same is once."""
        await self._connection.execute(
            "INSERT INTO loads VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
            loaded.id,
            loaded.pipeline,
            loaded.model_version,
            loaded.instance,
            loaded.loaded_at,
            loaded.model_dump_json(),
        )

    async def add_profile(self, profiled: DataProfiled) -> None:
        """Keep what the data of a run was like; twice the same is once."""
        await self._connection.execute(
            "INSERT INTO profiles VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            profiled.run_id,
            profiled.pipeline,
            profiled.profiled_at,
            profiled.model_dump_json(),
        )

    async def profiles(self, pipeline: str, limit: int) -> list[DataProfiled]:
        """What the data of the last trainings was like, the newest first (by pipeline time)."""
        rows = await self._connection.fetch(
            "SELECT profile FROM profiles WHERE pipeline = $1 ORDER BY profiled_at DESC, run_id LIMIT $2",
            pipeline,
            limit,
        )
        return [DataProfiled.model_validate_json(row["profile"]) for row in rows]

    def emit(self, event: Event, *, id: str, key: str) -> None:  # noqa: A002  (the envelope's name)
        """Put the event into the transaction's outbox."""
        self._transaction.emit(event, id=id, key=key)


def _pipeline(row: Row) -> PipelineVersion:
    return PipelineVersion(
        pipeline=row["pipeline"],
        version=row["version"],
        definition=json.loads(row["definition"]),
        sha256=row["sha256"],
        partitions=row["partitions"],
        defined_at=row["defined_at"],
        defined_by=row["defined_by"],
    )


def _model(row: Row) -> Model:
    return Model(
        trained=ModelTrained.model_validate_json(row["trained"]),
        gates=tuple(GateResult.model_validate(gate) for gate in json.loads(row["gates"])),
        state=row["state"],
        decision=Decision(by=row["decided_by"], at=row["decided_at"], reason=row["reason"]),
    )


def _deployment(row: Row) -> Deployment:
    return Deployment(
        pipeline=row["pipeline"],
        revision=row["revision"],
        champion=_ref(row["champion"]),
        challenger=_ref(row["challenger"]),
        challenger_share=row["challenger_share"],
        former=tuple(ModelRef.model_validate(ref) for ref in json.loads(row["former"])),
        pinned=tuple(ModelRef.model_validate(ref) for ref in json.loads(row["pinned"])),
        rolled_back=row["rolled_back"],
    )


def _audit(row: Row) -> AuditEntry:
    at: datetime = row["at"]
    deed = Deed(
        pipeline=row["pipeline"],
        actor=row["actor"],
        action=row["action"],
        model_version=row["model_version"],
        details=json.loads(row["details"]),
    )
    return AuditEntry(deed, row["sequence"], at, row["previous_sha256"], row["sha256"])


def _json(value: object) -> str:
    return canonical.dumps(value).decode()


def _ref_json(ref: ModelRef | None) -> str | None:
    return None if ref is None else ref.model_dump_json()


def _ref(text: str | None) -> ModelRef | None:
    return None if text is None else ModelRef.model_validate_json(text)
