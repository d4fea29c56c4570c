"""The profile of a run's data: every observation and label below its cut, within its window."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from everloop_schemas.events import DataProfiled, FieldProfile
from everloop_schemas.pipeline import Pipeline, Quality
from numpy.typing import NDArray

from everloop_trainer.application.training import microseconds
from everloop_trainer.domain.dataset import select
from everloop_trainer.domain.job import Job
from everloop_trainer.domain.profile import Blocks, blocks_of, field_profiles, late_share
from everloop_trainer.domain.records import Records

__all__ = ["data_profile"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Ints = NDArray[np.int64]
Read = Callable[[str], Mapping[str, Any]]


def data_profile(
    job: Job, pipeline: Pipeline, observations: Records, labels: Records, *, sha256: str, read: Read
) -> DataProfiled | None:
    """What new data is held against; None where nothing lies below the cut.

    All observations count, also those whose label never came: new data is held against it as it arrives.
    """
    window = (pipeline.quality or Quality()).window
    seen, told = _rows(job, pipeline, observations), _rows(job, pipeline, labels)
    if len(seen) == 0:
        return None
    times = observations.event_time[seen]
    blocks = blocks_of(times, window // timedelta(microseconds=1))
    told_blocks = blocks_of(labels.event_time[told], window // timedelta(microseconds=1))
    late_seconds, late = late_share(blocks, times, observations.known_at[seen])
    fields: dict[str, FieldProfile] = {
        **field_profiles("label", pipeline.label.fields, _fields(labels, told, read), told_blocks),
        **field_profiles(
            "observation", pipeline.observation.fields, _fields(observations, seen, read), blocks
        ),
    }
    return DataProfiled(
        run_id=job.run_id,
        pipeline=job.pipeline,
        pipeline_version=job.pipeline_version,
        dataset_sha256=sha256,
        window_seconds=window // timedelta(seconds=1),
        observations=len(seen),
        labels=len(told),
        first_event_time=_moment(times.min()),
        last_event_time=_moment(times.max()),
        late_seconds=late_seconds,
        late=late,
        fields=fields,
        profiled_at=job.pipeline_time,
        **_sizes(blocks),
    )


def _sizes(blocks: Blocks) -> dict[str, int]:
    return {"windows": len(blocks.window_rows), "days": len(blocks.day_rows)}


def _rows(job: Job, pipeline: Pipeline, records: Records) -> Ints:
    """The indexes of what lies below the cut and within the window of training."""
    rows = select(records.partition, records.offset, job.cut)
    oldest = microseconds(job.pipeline_time - pipeline.training.rows.window)
    return rows[records.event_time[rows] >= oldest]


def _fields(records: Records, rows: Ints, read: Read) -> list[Mapping[str, Any]]:
    return [read(records.fields[row]) for row in rows.tolist()]


def _moment(microseconds_: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(microseconds_))
