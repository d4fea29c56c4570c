"""Every event that crosses a service boundary, one model a topic.

Consumers ignore unknown fields; a producer may add optional ones within a version. Times are UTC and aware.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

__all__ = [
    "ArtifactChunk",
    "ArtifactRef",
    "Cut",
    "DataArrived",
    "DatasetRef",
    "DeploymentChanged",
    "DriftDetected",
    "DriftEvidence",
    "Event",
    "GateResult",
    "MetricEvidence",
    "ModelApproved",
    "ModelLoaded",
    "ModelRef",
    "ModelRejected",
    "ModelTrained",
    "PipelineDefined",
    "PredictionMade",
    "QuarantineResolved",
    "RecordAccepted",
    "RecordQuarantined",
    "RunFailed",
    "RunStarted",
    "SliceEvidence",
    "Trigger",
    "VectorComputed",
    "Violation",
]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="lower-case hexadecimal SHA-256")]
PipelineName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Cut = dict[int, int]
"""One offset per log partition: the dataset holds the records below it."""
Value = bool | int | float | str | None
"""One feature or field value in JSON; null is missing."""


class Part(BaseModel):
    """A piece of an event: immutable, tolerant of fields that a newer producer added."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Event(Part):
    """What happened, as one service tells the others."""

    topic: ClassVar[str]
    """The topic's base name; data topics add `.<pipeline>`."""

    @classmethod
    def type_name(cls) -> str:
        """The CloudEvents `type`."""
        return f"io.everloop.{cls.topic}"


class Violation(Part):
    """One rule that a record breaks, in words that say how to mend it."""

    field: str | None
    value: str = Field(description="the offending value as text, shortened to 200 characters")
    rule: str = Field(description="a stable code, such as `required`, `type`, `min`, `allowed-values`")
    mend: str


class RecordAccepted(Event):
    """One entry of a pipeline's log: an observation or a label that met the contract."""

    topic: ClassVar[str] = "ingest-record-accepted-v1"
    kind: Literal["observation", "label"]
    id: str
    source: str
    event_time: AwareDatetime
    known_at: AwareDatetime
    fields: dict[str, Value] = Field(description="declared fields, the partition key's among them")


class RecordQuarantined(Event):
    """A record that broke the contract, with its original bytes and each reason."""

    topic: ClassVar[str] = "ingest-record-quarantined-v1"
    pipeline: PipelineName
    reason: str = Field(description="the first violation's rule, or the decoder's code")
    violations: list[Violation]
    kind: Literal["observation", "label"] | None
    id: str | None
    source: str | None
    quarantined_at: AwareDatetime
    data_base64: str = Field(description="the original value, base64")
    inbound_partition: int
    inbound_offset: int
    headers: list[tuple[str, str | None]] | None = Field(
        default=None,
        description="the inbound record's headers in order, values in base64; null: not kept (too large)",
    )


class QuarantineResolved(Event):
    """What a person decided about one quarantined record: it was sent again, or put away for good."""

    topic: ClassVar[str] = "ingest-quarantine-resolved-v1"
    pipeline: PipelineName
    inbound_partition: int = Field(description="with `inbound_offset`: which quarantined record")
    inbound_offset: int
    action: Literal["replayed", "discarded"]
    patch_sha256: Sha256 | None = Field(
        default=None, description="of the patch file, where the record was sent again mended"
    )
    by: str
    reason: str
    batch: str = Field(description="one run of the command: the same for all that it resolved")
    resolved_at: AwareDatetime


class DataArrived(Event):
    """New data: how much one log partition holds now."""

    topic: ClassVar[str] = "ingest-data-arrived-v1"
    id: str
    pipeline: PipelineName
    partition: int
    observations: int = Field(ge=0, description="accepted in this partition since its beginning")
    labels: int = Field(ge=0)
    known_at: AwareDatetime = Field(description="the highest known_at in this partition")


class VectorComputed(Event):
    """The feature values of one observation, from what the log held before it."""

    topic: ClassVar[str] = "feature-vector-computed-v1"
    id: str
    pipeline_version: int = Field(ge=1)
    log_partition: int
    log_offset: int
    event_time: AwareDatetime
    known_at: AwareDatetime
    values: list[Value] = Field(description="in the order of the pipeline version's features")


class PredictionMade(Event):
    """One answer that serving gave."""

    topic: ClassVar[str] = "serving-prediction-made-v1"
    id: str = Field(description="the request's id and the label's join key")
    pipeline_version: int = Field(ge=1)
    model_version: int = Field(ge=1)
    arm: Literal["champion", "challenger", "pinned"]
    propensity: float = Field(gt=0, le=1)
    event_time: AwareDatetime
    predicted_at: AwareDatetime
    values: list[Value] = Field(description="the vector, in the order of the pipeline version's features")
    output: float
    latency_seconds: float = Field(ge=0)
    state_age_seconds: float | None = Field(
        default=None, description="age of the newest state seen, wall clock"
    )


class PipelineDefined(Event):
    """The current version of a pipeline's definition."""

    topic: ClassVar[str] = "registry-pipeline-defined-v1"
    pipeline: PipelineName
    version: int = Field(ge=1)
    definition: dict[str, Any] = Field(description="the pipeline file, normalised")
    sha256: Sha256
    partitions: int = Field(ge=1, description="of each of the pipeline's data topics")
    defined_at: AwareDatetime
    defined_by: str


class Trigger(Part):
    """Why a run started."""

    kind: Literal["new-data", "drift", "performance", "schedule", "manual", "changed-pipeline"]
    event_id: str = Field(description="id of the event that caused it; one run a trigger")
    reason: str


class RunStarted(Event):
    """A training run began."""

    topic: ClassVar[str] = "trainer-run-started-v1"
    run_id: str
    pipeline: PipelineName
    pipeline_version: int
    trigger: Trigger
    cut: Cut
    started_at: AwareDatetime = Field(description="pipeline time")


class RunFailed(Event):
    """A training run ended without a model; nothing in production changed."""

    topic: ClassVar[str] = "trainer-run-failed-v1"
    run_id: str
    pipeline: PipelineName
    trigger: Trigger
    reason: str
    mend: str


class DatasetRef(Part):
    """A training snapshot."""

    sha256: Sha256
    rows: int
    train_rows: int
    test_rows: int
    cut: Cut
    first_event_time: AwareDatetime
    last_event_time: AwareDatetime


class ArtifactRef(Part):
    """A model's bytes, found on the artifact topic by their digest."""

    sha256: Sha256
    bytes: int = Field(gt=0)
    chunks: int = Field(gt=0)


class SliceEvidence(Part):
    """A metric on the rows of one value of one category feature."""

    feature: str
    value: str
    rows: int
    candidate: float
    champion: float | None = None
    prior: float


class MetricEvidence(Part):
    """One metric on the newest rows, which no compared model has trained on; its name says what is better."""

    name: str = Field(description="log_loss, brier, auc, mae or rmse")
    candidate: float
    champion: float | None = None
    prior: float
    rows: int
    better_than_champion_confidence: float | None = Field(
        default=None,
        description="share of block-bootstrap resamples (whole days) in which the candidate wins",
    )
    better_than_prior_confidence: float | None = None
    slices: list[SliceEvidence] = []


class ModelTrained(Event):
    """A model version exists; nobody has judged it yet."""

    topic: ClassVar[str] = "trainer-model-trained-v1"
    run_id: str
    pipeline: PipelineName
    pipeline_version: int
    model_version: int = Field(ge=1, description="counts up within the pipeline")
    trigger: Trigger
    dataset: DatasetRef
    artifact: ArtifactRef
    champion_version: int | None = Field(description="the version it was compared with")
    metrics: list[MetricEvidence]
    parameters: dict[str, Value]
    libraries: dict[str, str]
    seconds: dict[str, float] = Field(description="by step; wall clock, not part of the lineage")
    trained_at: AwareDatetime = Field(description="pipeline time")


class ArtifactChunk(Event):
    """A piece of an artifact: the value is the bytes, the rest are Kafka headers (`everloop-<field>`)."""

    topic: ClassVar[str] = "trainer-artifact-chunk-v1"
    sha256: Sha256
    index: int = Field(ge=0)
    count: int = Field(ge=1)
    data: bytes


class GateResult(Part):
    """One gate, checked."""

    name: str
    passed: bool
    reason: str
    observed: float | None = None
    limit: float | None = None


class ModelApproved(Event):
    """A version may be served."""

    topic: ClassVar[str] = "registry-model-approved-v1"
    run_id: str
    pipeline: PipelineName
    model_version: int
    artifact: ArtifactRef
    gates: list[GateResult]
    decided_by: str
    decided_at: AwareDatetime


class ModelRejected(Event):
    """A version may not be served, and why."""

    topic: ClassVar[str] = "registry-model-rejected-v1"
    run_id: str
    pipeline: PipelineName
    model_version: int
    gates: list[GateResult]
    decided_by: str
    decided_at: AwareDatetime


class ModelRef(Part):
    """A version that serving must hold."""

    model_version: int
    pipeline_version: int
    artifact: ArtifactRef


class DeploymentChanged(Event):
    """What serving must run for one pipeline: the whole state, signed."""

    topic: ClassVar[str] = "registry-deployment-changed-v1"
    pipeline: PipelineName
    revision: int = Field(ge=1, description="counts up; serving ignores a lower one")
    champion: ModelRef | None
    challenger: ModelRef | None = None
    challenger_share: float = Field(default=0, ge=0, le=1)
    pinned: list[ModelRef] = Field(default=[], description="held loaded, reached by version only")
    reason: str
    changed_at: AwareDatetime
    key_id: str = Field(
        description="first 16 hexadecimal digits of the SHA-256 of the raw Ed25519 public key"
    )
    signature: str = Field(description="base64 Ed25519 over the canonical JSON of every other field")


class ModelLoaded(Event):
    """A serving instance swapped to a version, or could not."""

    topic: ClassVar[str] = "serving-model-loaded-v1"
    id: str
    pipeline: PipelineName
    model_version: int
    revision: int
    instance: str
    loaded: bool
    error: str | None = None
    seconds: float
    loaded_at: AwareDatetime


class DriftEvidence(Part):
    """One test that spoke."""

    feature: str = Field(description="a feature's name, or `loss`")
    statistic: str
    value: float
    threshold: float
    reference_days: int
    current_days: int


class DriftDetected(Event):
    """The world moved away from what the champion was trained on."""

    topic: ClassVar[str] = "monitor-drift-detected-v1"
    id: str
    pipeline: PipelineName
    model_version: int
    kind: Literal["feature", "loss"]
    evidence: list[DriftEvidence]
    window_start: datetime
    window_end: datetime
    detected_at: AwareDatetime = Field(description="pipeline time")
