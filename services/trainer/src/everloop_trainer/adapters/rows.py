"""Rows of the trainer's tables as what the use cases speak of."""

import json
from collections.abc import Mapping
from typing import Any

from everloop_schemas.events import Trigger
from everloop_schemas.pipeline import from_definition

from everloop_trainer.application.ports import Definition
from everloop_trainer.domain.runs import Run

__all__ = ["definition_of", "run_of"]


def definition_of(row: Mapping[str, Any]) -> Definition:
    """A row of `pipelines`."""
    raw = json.loads(row["definition"])
    return Definition(
        from_definition(raw), row["version"], row["sha256"], raw, row["partitions"], row["event_id"]
    )


def run_of(row: Mapping[str, Any]) -> Run:
    """A row of `runs`; what it needs was checked when it was claimed."""
    return Run(
        run_id=row["run_id"],
        pipeline=row["pipeline"],
        pipeline_version=row["pipeline_version"],
        trigger=Trigger.model_validate_json(row["trigger"]),
        overrides=json.loads(row["overrides"]),
        cut={int(partition): offset for partition, offset in json.loads(row["cut"]).items()},
        labels_at_cut=row["labels_at_cut"],
        pipeline_time=row["pipeline_time"],
        needs={},
        traceparent=row["traceparent"],
        attempts=row["attempts"],
        crashes=row["crashes"],
    )
