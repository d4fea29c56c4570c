"""Model bytes: from this machine's cache, or else from their topic."""

import asyncio

from aiokafka.errors import KafkaError
from everloop_kernel.artifacts import ArtifactCorrupt, ArtifactMissing, fetch
from everloop_kernel.errors import one_line
from everloop_kernel.settings import KafkaSettings
from everloop_schemas.events import ArtifactRef

from everloop_serving.adapters.files import ModelCache
from everloop_serving.application.ports import ModelRefused, NotNow

__all__ = ["ArtifactSource"]

_FETCH_SECONDS = 30.0


class ArtifactSource:
    """Fetches by digest and verifies, wherever the bytes come from."""

    def __init__(self, kafka: KafkaSettings, cache: ModelCache) -> None:
        self._kafka = kafka
        self._cache = cache

    async def fetch(self, artifact: ArtifactRef) -> bytes:
        """The bytes; ModelRefused when they are not what the digest names, NotNow when they cannot be had."""
        data = await asyncio.to_thread(self._cache.get, artifact.sha256)
        if data is not None:
            return data
        try:
            data = await fetch(self._kafka, artifact.sha256, timeout=_FETCH_SECONDS)
        except ArtifactCorrupt as error:
            raise ModelRefused(str(error)) from error
        except (ArtifactMissing, KafkaError, OSError) as error:
            raise NotNow(one_line(error)) from error
        try:
            await asyncio.to_thread(self._cache.put, artifact.sha256, data)
        except OSError as error:
            raise NotNow(f"the model cache cannot be written: {error.strerror}") from error
        return data
