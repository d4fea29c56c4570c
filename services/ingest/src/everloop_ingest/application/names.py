"""Topics, headers and the names under which ingest writes."""

from typing import Final

from everloop_schemas.events import (
    DataArrived,
    DataProfiled,
    QualityJudged,
    QualityMeasured,
    QualityNoted,
    RecordAccepted,
    RecordQuarantined,
)
from everloop_schemas.topics import TOPICS

__all__ = [
    "DATA_ARRIVED_TOPIC",
    "GROUP",
    "INBOUND",
    "JUDGED_TOPIC",
    "LOG",
    "MEASURED_TOPIC",
    "NOTED_TOPIC",
    "PROFILES_TOPIC",
    "QUALITY_GROUP",
    "QUARANTINE",
    "TALLY_HEADER",
    "inbound_pattern",
    "pipeline_of",
    "source_of",
]

GROUP: Final = "everloop-ingest"
INBOUND: Final = "producer-record-published-v1"
LOG: Final = RecordAccepted.topic
QUARANTINE: Final = RecordQuarantined.topic
DATA_ARRIVED_TOPIC: Final = DataArrived.topic
QUALITY_GROUP: Final = "everloop-ingest-quality"
NOTED_TOPIC: Final = QualityNoted.topic
MEASURED_TOPIC: Final = QualityMeasured.topic
JUDGED_TOPIC: Final = QualityJudged.topic
PROFILES_TOPIC: Final = DataProfiled.topic
TALLY_HEADER: Final = "everloop-partition-tally"
"""On the last log record of each transaction: observations,labels,highest known_at in µs."""


def inbound_pattern() -> str:
    """A regular expression for the inbound topics of all pipelines."""
    return TOPICS[INBOUND].pattern


def pipeline_of(topic: str) -> str:
    """The pipeline of a data topic."""
    return topic.partition(".")[2]


def source_of(pipeline: str) -> str:
    """The CloudEvents source of what ingest writes for a pipeline."""
    return f"/everloop/ingest/{pipeline}"
