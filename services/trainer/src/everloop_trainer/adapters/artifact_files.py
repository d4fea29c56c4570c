"""Models' bytes in files named by their digest; one that is missing is fetched from the artifact topic."""

import hashlib
import logging
import os
from pathlib import Path

from everloop_kernel import artifacts
from everloop_kernel.settings import KafkaSettings

__all__ = ["ArtifactFiles"]

_log = logging.getLogger(__name__)


class ArtifactFiles:
    """`application.ports.Artifacts` under `<root>/artifacts`."""

    def __init__(self, root: Path, kafka: KafkaSettings) -> None:
        self._directory = root / "artifacts"
        self._kafka = kafka

    async def ensure(self, sha256: str) -> bool:
        """Fetch the bytes unless an intact file has them; False where the topic has not got them either."""
        path = self._directory / sha256
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            return True
        try:
            self.keep(sha256, await artifacts.fetch(self._kafka, sha256))
        except (artifacts.ArtifactMissing, artifacts.ArtifactCorrupt) as error:
            _log.warning("the champion cannot be compared with: %s", error)
            return False
        return True

    def keep(self, sha256: str, data: bytes) -> None:
        """Write the file, whole or not at all."""
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f".{sha256}.{os.getpid()}"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._directory / sha256)
