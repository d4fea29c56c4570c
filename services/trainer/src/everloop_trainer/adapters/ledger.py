"""Runs in Postgres: claimed under a lease, so that one instance at a time works on each."""

import json
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from everloop_kernel import artifacts
from everloop_kernel.recorder import transaction

from everloop_trainer.adapters.rows import definition_of, run_of
from everloop_trainer.adapters.work import PostgresWork
from everloop_trainer.application.ports import Definition
from everloop_trainer.domain.job import Champion, Job, Outcome, Trained, Untrainable
from everloop_trainer.domain.runs import Run

__all__ = ["RunLedger"]

_CLAIM = """
UPDATE runs SET state = 'training', lease_owner = $1, lease_until = now() + make_interval(secs => $2),
    attempts = attempts + 1
WHERE run_id = (
    SELECT run_id FROM runs r
    WHERE state IN ('waiting', 'training') AND (lease_until IS NULL OR lease_until < now())
        AND NOT EXISTS (
            SELECT FROM run_needs n LEFT JOIN vector_progress v
                ON v.pipeline = r.pipeline AND v.version = r.pipeline_version AND v.partition = n.partition
            WHERE n.run_id = r.run_id AND coalesce(v.last_offset, -1) < n.last_observation)
        AND NOT EXISTS (
            SELECT FROM models m JOIN runs p USING (run_id)
            WHERE m.pipeline = r.pipeline AND m.verdict IS NULL
                AND p.ended_at > now() - make_interval(secs => $3))
    ORDER BY decided LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING *
"""
_RENEW = """
UPDATE runs SET lease_until = CASE state WHEN 'training' THEN now() + make_interval(secs => $3) END
WHERE run_id = $1 AND lease_owner = $2 RETURNING run_id
"""
_RELEASE = """
UPDATE runs SET lease_owner = NULL, crashes = crashes + $3, lease_until = now() + make_interval(secs => $4)
WHERE run_id = $1 AND lease_owner = $2 AND state = 'training'
"""
_CHAMPION = """
SELECT m.model_version, m.pipeline_version, m.artifact_sha256, m.last_event_time, r.cut
FROM champions c JOIN models m USING (pipeline, model_version) JOIN runs r USING (run_id)
WHERE c.pipeline = $1
"""
_END = """
UPDATE runs SET state = $3, outcome = $4, ended_at = now(), lease_until = NULL
WHERE run_id = $1 AND lease_owner = $2 AND state = 'training' RETURNING run_id
"""
_CRASH_PAUSE_SECONDS = 2.0
_VERDICT_SECONDS = 5.0
"""A registry that decides by itself has done so by then; a person may take days, and is not waited for."""


class RunLedger:
    """`application.ports.Runs` for one instance of the trainer."""

    def __init__(self, pool: Any, service: str, lease_seconds: float) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._pool = pool
        self._service = service
        self._lease_seconds = lease_seconds

    async def claim(self) -> Run | None:
        """Take the oldest run that can be worked on.

        Right after a model its verdict is waited for a moment: approved, it is the champion to compare with.
        """
        row = await self._pool.fetchrow(_CLAIM, self.owner, self._lease_seconds, _VERDICT_SECONDS)
        return None if row is None else run_of(row)

    async def waiting(self) -> bool:
        """Whether any run is not finished: its vectors may be complete soon, or its lease may expire."""
        found = await self._pool.fetchval(
            "SELECT EXISTS (SELECT FROM runs WHERE state IN ('waiting', 'training'))"
        )
        return bool(found)

    async def active(self) -> set[str]:
        """Ids of the runs that are not finished."""
        rows = await self._pool.fetch("SELECT run_id FROM runs WHERE state IN ('waiting', 'training')")
        return {row["run_id"] for row in rows}

    async def renew(self, run: Run) -> bool:
        """Hold it for another lease; who has ended it keeps it, so that its last steps are not cut short."""
        return await self._pool.fetchval(_RENEW, run.run_id, self.owner, self._lease_seconds) is not None

    async def release(self, run: Run, *, crashed: bool) -> None:
        """Give it back; a crash makes it rest, longer each time."""
        pause = _CRASH_PAUSE_SECONDS * 2**run.crashes if crashed else 0.0
        await self._pool.execute(_RELEASE, run.run_id, self.owner, int(crashed), pause)

    async def vector_traces(self, run: Run) -> list[str]:
        """The spans that recorded the newest vectors of each partition, in W3C form."""
        rows = await self._pool.fetch(
            "SELECT traceparent FROM vector_progress WHERE pipeline = $1 AND version = $2"
            " AND traceparent IS NOT NULL ORDER BY partition",
            run.pipeline,
            run.pipeline_version,
        )
        return [row["traceparent"] for row in rows]

    async def definition(self, run: Run) -> Definition:
        """The run's pipeline version; a run is only opened for one that is known."""
        row = await self._pool.fetchrow(
            "SELECT * FROM pipelines WHERE pipeline = $1 AND version = $2", run.pipeline, run.pipeline_version
        )
        return definition_of(row)

    async def champion(self, run: Run) -> Champion | None:
        """The version in service, if this trainer made it."""
        row = await self._pool.fetchrow(_CHAMPION, run.pipeline)
        return None if row is None else Champion(**{**row, "cut": json.loads(row["cut"])})

    async def job(self, run: Run) -> Job | None:
        """What an earlier attempt kept."""
        text = await self._pool.fetchval("SELECT job FROM runs WHERE run_id = $1", run.run_id)
        return None if text is None else Job.model_validate_json(text)

    async def keep_job(self, run: Run, job: Job) -> None:
        """Keep it if the run is still ours."""
        await self._pool.execute(
            "UPDATE runs SET job = $3 WHERE run_id = $1 AND lease_owner = $2",
            run.run_id,
            self.owner,
            job.model_dump_json(),
        )

    @asynccontextmanager
    async def conclusion(self) -> AsyncIterator["ConclusionWork"]:
        """A transaction that ends a run held by this instance."""
        async with transaction(self._pool, self._service) as work:
            yield ConclusionWork(work, self.owner)


class ConclusionWork(PostgresWork):
    """`application.ports.Conclusion` on one transaction."""

    def __init__(self, work: Any, owner: str) -> None:
        super().__init__(work)
        self._owner = owner

    async def end_trained(self, run: Run, trained: Trained) -> int | None:
        """End the run and count the pipeline's model versions up; the desk is taken first, as everywhere."""
        version: int = await self._connection.fetchval(
            "INSERT INTO desks AS d VALUES ($1, 1) ON CONFLICT (pipeline)"
            " DO UPDATE SET last_model_version = d.last_model_version + 1 RETURNING last_model_version",
            run.pipeline,
        )
        if not await self._end(run, "trained", Outcome(trained=trained)):
            await self._connection.execute(
                "UPDATE desks SET last_model_version = last_model_version - 1 WHERE pipeline = $1",
                run.pipeline,
            )
            return None
        await self._connection.execute(
            "INSERT INTO models (pipeline, model_version, run_id, pipeline_version, artifact_sha256,"
            " dataset_sha256, last_event_time, unseen_champion, unseen_rows)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            run.pipeline,
            version,
            run.run_id,
            run.pipeline_version,
            trained.artifact_sha256,
            trained.dataset.sha256,
            trained.dataset.last_event_time,
            trained.unseen and trained.unseen.champion_version,
            trained.unseen and trained.unseen.rows,
        )
        return version

    async def end_failed(self, run: Run, failed: Untrainable) -> bool:
        """End the run without a model."""
        await self._connection.execute("SELECT FROM desks WHERE pipeline = $1 FOR UPDATE", run.pipeline)
        return await self._end(run, "failed", Outcome(failed=failed))

    def emit_artifact(self, data: bytes) -> int:
        """Publish the chunks."""
        pieces = artifacts.chunks(data)
        digest = dict(pieces[0][0])["everloop-sha256"]
        for headers, piece in pieces:
            self._transaction.emit_raw(artifacts.TOPIC, digest, piece, headers)
        return len(pieces)

    async def _end(self, run: Run, state: str, outcome: Outcome) -> bool:
        ended = await self._connection.fetchval(
            _END, run.run_id, self._owner, state, outcome.model_dump_json()
        )
        return ended is not None
