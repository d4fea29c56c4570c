"""Every event that crosses a service boundary, one model a topic.

Consumers ignore unknown fields; a producer may add optional ones within a version. Times are UTC and aware.
"""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from everloop_schemas.shares import SharePattern

__all__ = [
    "Acceptance",
    "ArtifactChunk",
    "ArtifactRef",
    "Cut",
    "DataArrived",
    "DataGate",
    "DataProfiled",
    "DatasetRef",
    "DeploymentChanged",
    "DriftDetected",
    "DriftEvidence",
    "Event",
    "FieldProfile",
    "GateResult",
    "MeasuredShare",
    "MetricEvidence",
    "ModelApproved",
    "ModelLoaded",
    "ModelRef",
    "ModelRejected",
    "ModelTrained",
    "PipelineDefined",
    "PredictionMade",
    "QualityJudged",
    "QualityMeasured",
    "QualityNoted",
    "QualityStanding",
    "QuarantineResolved",
    "RecordAccepted",
    "RecordQuarantined",
    "RunFailed",
    "RunStarted",
    "SliceEvidence",
    "Tallied",
    "Trigger",
    "UnseenRows",
    "VectorComputed",
    "Violation",
    "WindowMeasured",
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
    """One entry of a pipeline's log: an observation, a label or a retraction that met the contract."""

    topic: ClassVar[str] = "ingest-record-accepted-v1"
    kind: Literal["observation", "label"]
    id: str
    source: str
    event_time: AwareDatetime
    known_at: AwareDatetime
    fields: dict[str, Value] = Field(description="declared fields, the partition key's among them")
    retraction: bool = Field(
        default=False,
        description="the observation of this id is withdrawn; kind is label then, without a value",
    )
    warnings: list[Violation] = Field(default=[], description="broken rules that only warn")
    reason: str | None = Field(default=None, description="why the observation was retracted")


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
    retraction: bool = Field(default=False, description="whether it is a retraction; kind is label then")
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
    blocked: bool = Field(default=False, description="a data gate is broken: no run may start on this data")
    blocked_reason: str | None = Field(default=None, description="which gates, in words")
    quality_revision: int = Field(default=0, ge=0, description="counts the changes of `blocked`")


class Tallied(Part):
    """What one transaction of one log partition adds to a window of known_at."""

    partition: int = Field(ge=0)
    window_start: AwareDatetime
    known_at: AwareDatetime = Field(description="the highest known_at in the log partition so far")
    observations: int = Field(default=0, ge=0)
    labels: int = Field(default=0, ge=0)
    duplicates: int = Field(default=0, ge=0)
    quarantined: int = Field(default=0, ge=0)
    profile: str | None = Field(default=None, description="run whose profile `learned` was counted under")
    learned: dict[str, int] = Field(default={}, description="rows by learned measure, such as `wind:null`")
    declared: dict[str, int] = Field(default={}, description="rows that a declared expectation does not take")
    unseen: dict[str, list[str]] = Field(default={}, description="values that training never saw, by field")
    arrived: list[int] | None = Field(
        default=None, description="observations and labels since the beginning, where new data is announced"
    )


class Acceptance(Part):
    """A person takes the data as it is: the gates broken now stay open until the next profile."""

    by: str
    reason: str
    at: AwareDatetime


class QualityNoted(Event):
    """What the judge of the data gates learns: a partition's tally, or a person's decision."""

    topic: ClassVar[str] = "ingest-quality-noted-v1"
    pipeline: PipelineName
    tallied: Tallied | None = None
    accepted: Acceptance | None = None


class DataGate(Part):
    """One gate on a window's data, with its figure."""

    gate: str = Field(description="such as `wind:null` (learned) or `not_null(wind)` (declared)")
    source: Literal["declared", "learned"]
    field: str | None = None
    scale: Literal["window", "day"] = "window"
    figure: float = Field(description="a share of rows, or a number of rows")
    at_least: float | None = None
    at_most: float | None = None
    rows: int = Field(ge=0)
    on_broken: Literal["block", "warn"]
    examples: list[str] = []


class QualityJudged(Event):
    """A window broke a gate, or what this means for training has changed."""

    topic: ClassVar[str] = "ingest-quality-judged-v1"
    id: str
    pipeline: PipelineName
    revision: int = Field(ge=1, description="counts up within the pipeline")
    verdict: Literal["broken", "passed", "accepted"]
    window_start: AwareDatetime
    window_end: AwareDatetime
    gates: list[DataGate] = Field(description="those that are broken")
    blocked: bool
    blocked_reason: str | None = None
    decided_by: str | None = Field(default=None, description="who accepted the data")
    decision_reason: str | None = Field(default=None, description="and why")
    known_at: AwareDatetime = Field(description="pipeline time at which the verdict was due")


class WindowMeasured(Part):
    """A window's tallies over all partitions, and what became of it."""

    start: AwareDatetime
    end: AwareDatetime
    state: Literal["open", "passed", "broken"]
    observations: int
    labels: int
    duplicates: int
    quarantined: int
    profile: str | None = None
    profiled_observations: int = 0
    profiled_labels: int = 0
    learned: dict[str, int] = {}
    declared: dict[str, int] = {}
    unseen: dict[str, list[str]] = {}
    broken: list[DataGate] = []


class PartitionClock(Part):
    """How far a log partition has come."""

    partition: int = Field(ge=0)
    known_at: AwareDatetime = Field(description="the highest known_at of its records so far")
    noted_at: AwareDatetime = Field(description="when it was last heard of, by the clock on the wall")


class QualityStanding(Part):
    """Where a pipeline's data stands."""

    revision: int = 0
    known_at: AwareDatetime = Field(description="pipeline time")
    judged_until: AwareDatetime = Field(description="windows that end by then are judged")
    clocks: list[PartitionClock] = Field(default=[], description="of each log partition, in their order")
    held: list[DataGate] = Field(default=[], description="broken gates that block, as they were found")
    waived: list[str] = Field(default=[], description="gates that a person has opened")
    waived_under: str | None = Field(default=None, description="the profile they were opened under")
    accepted_by: str | None = None


class QualityMeasured(Event):
    """A window's figures (key: pipeline/start), or a pipeline's standing (key: pipeline)."""

    topic: ClassVar[str] = "ingest-quality-measured-v1"
    pipeline: PipelineName
    window: WindowMeasured | None = None
    standing: QualityStanding | None = None


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


class UnseenRows(Part):
    """How many labelled rows the champion has not trained on, and how many a comparison with it needs."""

    champion_version: int = Field(description="the champion when the run was trained")
    rows: int = Field(ge=0)
    needed: int = Field(ge=0)


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
    unseen: UnseenRows | None = Field(
        default=None, description="absent where there was no champion to compare with"
    )
    metrics: list[MetricEvidence]
    parameters: dict[str, Value]
    libraries: dict[str, str]
    seconds: dict[str, float] = Field(description="by step; wall clock, not part of the lineage")
    trained_at: AwareDatetime = Field(description="pipeline time")


class MeasuredShare(Part):
    """How one share behaved in the training data: in windows, and in whole days."""

    window: SharePattern
    day: SharePattern


class FieldProfile(Part):
    """One field as the training data had it."""

    kind: Literal["observation", "label"]
    low: float | None = Field(default=None, description="the 1% quantile of a number")
    high: float | None = Field(default=None, description="the 99% quantile of a number")
    minimum: float | None = None
    mean: float | None = None
    median: float | None = None
    maximum: float | None = None
    known: list[str] | None = Field(default=None, description="every value of a category; null: too many")
    measures: dict[str, MeasuredShare] = Field(
        description="null, below, above, true, unseen, is:VALUE; each as a share of all rows of the kind"
    )


class DataProfiled(Event):
    """What the data of a training was like: the invariants that new data is held against."""

    topic: ClassVar[str] = "trainer-data-profiled-v1"
    run_id: str
    pipeline: PipelineName
    pipeline_version: int
    dataset_sha256: Sha256
    window_seconds: int = Field(ge=1)
    windows: int
    days: int
    observations: int
    labels: int
    first_event_time: AwareDatetime
    last_event_time: AwareDatetime
    late_seconds: float = Field(description="99% of the observations were known so soon after they happened")
    late: MeasuredShare
    fields: dict[str, FieldProfile]
    profiled_at: AwareDatetime = Field(description="pipeline time")


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
