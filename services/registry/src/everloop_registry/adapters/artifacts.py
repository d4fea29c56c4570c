"""Trained bytes, fetched from their topic and checked."""

from dataclasses import dataclass

from everloop_kernel.admin import missing_topics
from everloop_kernel.artifacts import TOPIC, ArtifactCorrupt, ArtifactMissing, fetch
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.events import ArtifactRef

__all__ = ["KafkaArtifacts"]


@dataclass(frozen=True, slots=True)
class KafkaArtifacts:
    """`application.ports.Artifacts` on `trainer-artifact-chunk-v1`."""

    kafka: KafkaSettings
    timeout_seconds: float

    async def problem_with(self, artifact: ArtifactRef) -> str | None:
        """Fetch the bytes; None when they match the SHA-256 and the length that were announced."""
        try:
            data = await fetch(self.kafka, artifact.sha256, self.timeout_seconds)
        except ArtifactMissing as error:
            # an unreachable broker looks the same: that must raise and be tried again, not reject a model
            await missing_topics(self.kafka, [TOPIC])
            return str(error)
        except ArtifactCorrupt as error:
            return str(error)
        if len(data) != artifact.bytes:
            return f"{len(data)} bytes were found where {artifact.bytes} were announced"
        return None
