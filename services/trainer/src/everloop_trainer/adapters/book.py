"""The trainer's records, for reading: runs and models in Postgres, rows in staging and in segments."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from everloop_features import compile  # noqa: A004 - the feature language's name for it
from everloop_schemas.events import Trigger

from everloop_trainer.adapters.processes import packed, run_child
from everloop_trainer.adapters.rows import definition_of
from everloop_trainer.application.queries import Found, RunRecord
from everloop_trainer.application.verify import Made
from everloop_trainer.domain.job import Job, Outcome
from everloop_trainer.domain.retracted import RETRACTED

__all__ = ["PostgresBook"]

_RUNS = "SELECT r.*, m.model_version, m.verdict FROM runs r LEFT JOIN models m USING (run_id)"
_MADE = """
SELECT r.job, m.dataset_sha256, m.artifact_sha256 FROM models m JOIN runs r USING (run_id)
WHERE m.pipeline = $1 AND m.model_version = $2
"""
_STAGED = """
SELECT kind, version, partition, log_offset, label, event_time_us, known_at_us, data FROM staged
WHERE pipeline = $1 AND id = $2
"""
_SEGMENTS = "SELECT file, kind, version, partition FROM segments WHERE pipeline = $1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PREFIX = "feature_"
_RETRACTED = json.loads(RETRACTED)

Row = dict[str, Any]


class PostgresBook:
    """`application.queries.Book`."""

    def __init__(self, pool: Any, root: Path) -> None:
        self._pool = pool
        self._root = root

    async def runs(self, pipeline: str | None, limit: int) -> list[RunRecord]:
        """The newest runs first."""
        query = f"{_RUNS} WHERE $1::text IS NULL OR r.pipeline = $1 ORDER BY decided DESC LIMIT $2"
        return [_record(row) for row in await self._pool.fetch(query, pipeline, limit)]

    async def run(self, run_id: str) -> RunRecord | None:
        """One run."""
        row = await self._pool.fetchrow(f"{_RUNS} WHERE run_id = $1", run_id)
        return None if row is None else _record(row)

    async def made(self, pipeline: str, model_version: int) -> Made | None:
        """How a model was made."""
        row = await self._pool.fetchrow(_MADE, pipeline, model_version)
        if row is None:
            return None
        return Made(Job.model_validate_json(row["job"]), row["dataset_sha256"], row["artifact_sha256"])

    async def find(self, pipeline: str, observation_id: str) -> Found | None:
        """Look through staged rows and every segment; the latest known label counts."""
        names = await self._names(pipeline)
        if not names:
            return None
        rows = [
            *await self._staged(pipeline, observation_id, names),
            *await self._stored(pipeline, observation_id),
        ]
        observations = [row for row in rows if row["kind"] == "records" and not row["label"]]
        told = [row for row in rows if row["kind"] == "records" and row["label"]]
        labels = [row for row in told if row["fields"] != _RETRACTED]
        retractions = [{**row, "fields": {}} for row in told if row["fields"] == _RETRACTED]
        vectors = sorted((r for r in rows if r["kind"] == "vectors"), key=lambda r: -r["pipeline_version"])
        return Found(
            _view(min(observations, key=_known, default=None)),
            [view for row in vectors if (view := _view(row)) is not None],
            _view(max(labels, key=_known, default=None)),
            _view(max(retractions, key=_known, default=None)),
        )

    async def _names(self, pipeline: str) -> dict[int, Sequence[str]]:
        """Feature names by pipeline version."""
        rows = await self._pool.fetch("SELECT * FROM pipelines WHERE pipeline = $1", pipeline)
        compiled = {row["version"]: compile(definition_of(row).pipeline) for row in rows}
        return {version: () if isinstance(c, list) else c.names for version, c in compiled.items()}

    async def _staged(self, pipeline: str, wanted: str, names: Mapping[int, Sequence[str]]) -> list[Row]:
        return [_staged_row(row, names) for row in await self._pool.fetch(_STAGED, pipeline, wanted)]

    async def _stored(self, pipeline: str, wanted: str) -> list[Row]:
        segments = {row["file"]: row for row in await self._pool.fetch(_SEGMENTS, pipeline)}
        if not segments:
            return []
        request = packed({"id": wanted, "files": list(segments)})
        answer = await run_child("find_rows", str(self._root), given=request)
        return [_stored_row(row, segments[row["file"]]) for row in json.loads(answer)]


def _staged_row(row: Any, names: Mapping[int, Sequence[str]]) -> Row:
    data = json.loads(row["data"])
    if row["kind"] == "vectors":
        data = dict(zip(names.get(row["version"]) or map(str, range(len(data))), data, strict=True))
    times = {name: _EPOCH + timedelta(microseconds=row[f"{name}_us"]) for name in ("event_time", "known_at")}
    offset, place = row["log_offset"], {"kind": row["kind"], "partition": row["partition"]}
    shown = {name: time.isoformat() for name, time in times.items()}
    return {**place, **shown, "offset": offset, "label": row["label"], **_data(row, data)}


def _stored_row(row: Row, segment: Any) -> Row:
    data = (
        {name.removeprefix(_PREFIX): value for name, value in row.items() if name.startswith(_PREFIX)}
        if segment["kind"] == "vectors"
        else json.loads(row["fields"])
    )
    shown = {name: row[name] for name in ("event_time", "known_at")}
    place = {"kind": segment["kind"], "partition": segment["partition"], "offset": row["log_offset"]}
    return {**place, **shown, "label": row.get("label", False), **_data(segment, data)}


def _data(about: Any, data: Any) -> Row:
    if about["kind"] == "vectors":
        return {"pipeline_version": about["version"], "values": data}
    return {"fields": data}


def _known(row: Row) -> tuple[str, int, int]:
    return row["known_at"], row["partition"], row["offset"]


def _view(row: Row | None) -> Row | None:
    return None if row is None else {name: row[name] for name in _shown(row)}


def _shown(row: Row) -> Iterable[str]:
    return (name for name in row if name not in {"kind", "label"})


def _record(row: Any) -> RunRecord:
    return RunRecord(
        run_id=row["run_id"],
        pipeline=row["pipeline"],
        pipeline_version=row["pipeline_version"],
        trigger=Trigger.model_validate_json(row["trigger"]),
        overrides=json.loads(row["overrides"]),
        cut={int(partition): offset for partition, offset in json.loads(row["cut"]).items()},
        labels_at_cut=row["labels_at_cut"],
        pipeline_time=row["pipeline_time"],
        state=row["state"],
        attempts=row["attempts"],
        model_version=row["model_version"],
        verdict=row["verdict"],
        outcome=None if row["outcome"] is None else Outcome.model_validate_json(row["outcome"]),
        created_at=row["created_at"],
        ended_at=row["ended_at"],
    )
