"""A pipeline's data topics, made from the topic files."""

from dataclasses import dataclass

from everloop_kernel.admin import ensure_topics
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.pipeline import Pipeline
from everloop_schemas.topics import pipeline_topics

__all__ = ["KafkaTopics"]


@dataclass(frozen=True, slots=True)
class KafkaTopics:
    """`application.ports.Topics` on the Kafka cluster."""

    kafka: KafkaSettings

    async def ensure(self, pipeline: Pipeline) -> None:
        """Create the data topics that do not exist yet, each with the pipeline's partitions."""
        await ensure_topics(self.kafka, pipeline_topics(pipeline.pipeline, pipeline.partitions))
