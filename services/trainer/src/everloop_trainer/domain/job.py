"""What one training needs and what comes of it: the files between the trainer and its training process."""

from datetime import datetime
from typing import Any, Literal

from everloop_schemas.events import Cut, DataProfiled, DatasetRef, MetricEvidence, UnseenRows, Value
from pydantic import BaseModel, ConfigDict

__all__ = [
    "Champion",
    "Job",
    "LogFile",
    "Outcome",
    "SegmentFile",
    "Trained",
    "Untrainable",
    "UntrainableError",
]


class Spec(BaseModel):
    """A part of a job; written as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentFile(Spec):
    """One immutable Parquet file of vectors, or of log records (version 0), and the digest it must have."""

    kind: Literal["vectors", "records"]
    version: int
    partition: int
    first: int
    last: int
    file: str
    sha256: str


class LogFile(Spec):
    """A partition of the raw log, as read again from Kafka."""

    partition: int
    file: str


class Champion(Spec):
    """The version in service, with which the candidate is compared.

    `cut`: what it has trained on; None in jobs that were kept before it was named.
    """

    model_version: int
    pipeline_version: int
    artifact_sha256: str
    last_event_time: datetime
    cut: Cut | None = None


class Job(Spec):
    """All that a model's bytes depend on, and where to read it.

    Either `segments` (training) or `log` (verification) say what lies below the cut.
    """

    run_id: str
    pipeline: str
    pipeline_version: int
    pipeline_sha256: str
    definition: dict[str, Any]
    cut: Cut
    pipeline_time: datetime
    overrides: dict[str, Value] = {}
    champion: Champion | None = None
    segments: list[SegmentFile] = []
    log: list[LogFile] | None = None


class Trained(Spec):
    """A model exists; its bytes lie beside this as `artifact.tar`."""

    dataset: DatasetRef
    artifact_sha256: str
    artifact_bytes: int
    champion_version: int | None
    unseen: UnseenRows | None = None
    metrics: list[MetricEvidence]
    parameters: dict[str, Value]
    libraries: dict[str, str]
    seconds: dict[str, float]
    profile: DataProfiled | None = None


class Untrainable(Spec):
    """No model can come of this data; the same data will not give one either."""

    reason: str
    mend: str


class Outcome(Spec):
    """What a training process leaves behind: one of the two."""

    trained: Trained | None = None
    failed: Untrainable | None = None


class UntrainableError(Exception):
    """Raised where the data cannot give a model; `mend` says what its owner can do."""

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.mend = mend
