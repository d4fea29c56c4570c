"""What the HTTP pages read: figures by day, verdicts, one prediction."""

import json
from collections.abc import Mapping
from typing import Any, Final

from everloop_monitor.adapters.postgres import LOSSES

__all__ = ["Reports"]

# MATERIALIZED: otherwise the labels are counted once more for each group
_DAYS: Final = """
    WITH ranked AS (
        SELECT model_version, arm, day, output, label,
               rank() OVER same
               + (count(*) OVER (PARTITION BY model_version, arm, day, output) - 1) / 2.0 AS rank
        FROM predictions WHERE pipeline = $1 AND label IS NOT NULL
        WINDOW same AS (PARTITION BY model_version, arm, day ORDER BY output)
    ), known AS MATERIALIZED (
        SELECT day, sum(sum(value)) OVER before / nullif(sum(count(*)) OVER before, 0) AS prior
        FROM labels WHERE pipeline = $1 AND value IS NOT NULL AND NOT withdrawn GROUP BY day
        WINDOW before AS (ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    )
    SELECT model_version, arm, day::text, count(*) AS rows, avg({loss}) AS loss,
           avg((output - label) ^ 2) AS square,
           avg(label) AS mean, (SELECT prior FROM known WHERE known.day = ranked.day) AS prior,
           sum(rank) FILTER (WHERE label > 0.5) AS ranks, count(*) FILTER (WHERE label > 0.5) AS positive
    FROM ranked GROUP BY model_version, arm, day ORDER BY day, model_version, arm
"""


class Reports:
    """Reads of the monitor's tables, outside of any decision."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def task(self, pipeline: str) -> str | None:
        """`binary` or `number`; None for an unknown pipeline."""
        definition = await self._pool.fetchval(
            "SELECT definition FROM pipelines WHERE pipeline = $1 ORDER BY version DESC LIMIT 1", pipeline
        )
        return None if definition is None else str(json.loads(definition)["label"]["type"])

    async def days(self, pipeline: str, task: str) -> list[dict[str, Any]]:
        """One entry a model version, arm and day: rows with a known outcome, and their figures."""
        rows = await self._pool.fetch(_DAYS.format(loss=LOSSES[task]), pipeline)
        return [(_binary if task == "binary" else _number)(row) for row in rows]

    async def verdicts(self, pipeline: str) -> list[dict[str, Any]]:
        """The newest judgement of each model and kind."""
        rows = await self._pool.fetch(
            "SELECT model_version, kind, day::text, value, threshold, detected, evidence, alarmed::text"
            " FROM verdicts WHERE pipeline = $1 ORDER BY model_version, kind",
            pipeline,
        )
        return [{**row, "evidence": json.loads(row["evidence"])} for row in rows]

    async def predictions(self, pipeline: str | None, identity: str) -> list[dict[str, Any]]:
        """Every answer given for one id, the routed one first."""
        rows = await self._pool.fetch(
            "SELECT p.pipeline, p.id, p.model_version, p.pipeline_version, p.arm, p.event_time,"
            " p.predicted_at, p.output, p.label, l.known_at AS label_known_at, p.trace_id FROM predictions p"
            " LEFT JOIN labels l ON l.pipeline = p.pipeline AND l.id = p.id"
            " WHERE p.id = $1 AND ($2::text IS NULL OR p.pipeline = $2) ORDER BY p.arm, p.model_version DESC",
            identity,
            pipeline,
        )
        return [dict(row) for row in rows]


def _binary(row: Mapping[str, Any]) -> dict[str, Any]:
    negative = row["rows"] - row["positive"]
    pairs = row["positive"] * negative
    above = float(row["ranks"] or 0) - row["positive"] * (row["positive"] + 1) / 2
    return {
        **_shared(row),
        "log_loss": row["loss"],
        "brier": row["square"],
        "auc": above / pairs if pairs else None,
        "positive_share": row["mean"],
        "prior": row["prior"],
    }


def _number(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**_shared(row), "mae": row["loss"], "rmse": row["square"] ** 0.5, "mean": row["mean"]}


def _shared(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("day", "model_version", "arm", "rows")}
