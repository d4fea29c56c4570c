"""What a decision about a pipeline looks at, read from Postgres."""

import json
from collections.abc import Mapping
from typing import Any

from everloop_schemas.pipeline_parts import Observation

from everloop_trainer.application.ports import Definition
from everloop_trainer.domain.policy import Arrival, DriftSignal, LastRun, ManualRequest, Reigning, Situation
from everloop_trainer.domain.runs import Progress, pipeline_time

__all__ = ["situation"]

_EFFECTIVE_ARRIVAL = """
SELECT event_id FROM arrivals a JOIN log_progress p USING (pipeline, partition)
WHERE pipeline = $1 AND a.labels <= p.labels ORDER BY arrived DESC LIMIT 1
"""
_LAST_RUN = """
SELECT r.pipeline_version, r.labels_at_cut, r.pipeline_time AS decided_at,
    CASE WHEN m.unseen_champion = c.model_version THEN m.unseen_rows END AS unseen_rows
FROM runs r LEFT JOIN models m USING (run_id) LEFT JOIN champions c ON c.pipeline = r.pipeline
WHERE r.pipeline = $1 AND overrides = '{}' ORDER BY decided DESC LIMIT 1
"""
_CHAMPION = """
SELECT c.model_version, m.pipeline_version, r.labels_at_cut
FROM champions c JOIN models m USING (pipeline, model_version) JOIN runs r USING (run_id)
WHERE c.pipeline = $1
"""
_UNJUDGED = """
SELECT EXISTS (
    SELECT 1 FROM log_progress p LEFT JOIN announced a USING (pipeline, partition)
    WHERE pipeline = $1 AND p.observations + p.labels - coalesce(a.records, 0) >= (
        SELECT max(coalesce((definition::json #>> '{observation,notify_every}')::bigint, $2))
        FROM pipelines WHERE pipeline = $1
    )
)
"""
"""An announcement is due every so many records of a partition; an older file may have given the number."""
_NOTIFY_EVERY = Observation.model_fields["notify_every"].default
_SIGNAL = {
    "drift": "SELECT event_id, body FROM signals WHERE pipeline = $1 AND kind = 'drift'"
    " ORDER BY arrived DESC LIMIT 1",
    "manual": "SELECT event_id, body FROM signals WHERE pipeline = $1 AND kind = 'manual'"
    " ORDER BY arrived LIMIT 1",
}


async def situation(connection: Any, definition: Definition, progress: Mapping[int, Progress]) -> Situation:
    """Read what the tables say about the pipeline, within the caller's transaction."""
    name, one = definition.pipeline.pipeline, connection.fetchrow
    active = "SELECT 1 FROM runs WHERE pipeline = $1 AND state IN ('waiting', 'training')"
    last, champion = await one(_LAST_RUN, name), await one(_CHAMPION, name)
    arrival = await one(_EFFECTIVE_ARRIVAL, name)
    drift, manual = await _signal(connection, name, "drift"), await _signal(connection, name, "manual")
    return Situation(
        pipeline_version=definition.version,
        labels=sum(p.labels for p in progress.values()),
        pipeline_time=pipeline_time(progress),
        active=await one(active, name) is not None,
        last=LastRun(**last) if last else None,
        champion=Reigning(**champion) if champion else None,
        arrival=Arrival(arrival["event_id"]) if arrival else None,
        drift=DriftSignal(**drift) if drift else None,
        manual=ManualRequest(**manual) if manual else None,
        definition_event_id=definition.event_id,
        blocked=await connection.fetchval("SELECT reason FROM data_blocks WHERE pipeline = $1", name),
        unjudged=await connection.fetchval(_UNJUDGED, name, _NOTIFY_EVERY),
    )


async def _signal(connection: Any, pipeline: str, kind: str) -> dict[str, Any] | None:
    """The oldest request, or the newest drift: of several drifts one run answers all."""
    row = await connection.fetchrow(_SIGNAL[kind], pipeline)
    return {"event_id": row["event_id"], **json.loads(row["body"])} if row else None
