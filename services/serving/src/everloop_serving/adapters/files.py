"""What serving keeps on disk: its name, the last deployments, and models by their digest."""

import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO

from everloop_kernel.errors import ConfigurationError

__all__ = ["DeploymentFiles", "Home", "ModelCache"]

_KEPT_UNUSED_MODELS = 5
_MADE_NAME = re.compile("[0-9a-f]{12}")


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file's content; after a crash it is the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class Home:
    """This instance's folder, `<data_dir>/serving`; one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[bytes] = (folder / "lock").open("ab")
        except OSError as error:
            raise ConfigurationError(
                f"{folder} cannot be written: {error.strerror}", "Change EVERLOOP_DATA_DIR"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"another serving process uses {folder}",
                "Stop it, or give this one its own EVERLOOP_DATA_DIR",
            ) from error

    def instance(self, wanted: str | None) -> str:
        """The instance's name: as wanted, or one made at the first start and whenever its file is damaged."""
        path = self.folder / "instance"
        if wanted is not None:
            return wanted
        kept = path.read_text("ascii", "replace") if path.exists() else ""
        if not _MADE_NAME.fullmatch(kept):
            kept = uuid.uuid4().hex[:12]
            write_durably(path, kept.encode())
        return kept


class DeploymentFiles:
    """The last deployment of each pipeline that was loaded, as it was signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, pipeline: str, signed: bytes) -> None:
        """Keep it for a start without Kafka."""
        write_durably(self._folder / f"{pipeline}.json", signed)

    def load(self) -> Iterator[bytes]:
        """What was saved; it must be verified again."""
        for path in sorted(self._folder.glob("[a-z]*.json")):
            yield path.read_bytes()


class ModelCache:
    """Model artifacts in files named by their SHA-256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, sha256: str) -> bytes | None:
        """The artifact, or None where it is not kept or was damaged."""
        path = self._folder / sha256
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if hashlib.sha256(data).hexdigest() != sha256:
            path.unlink()
            return None
        os.utime(path)
        return data

    def put(self, sha256: str, data: bytes) -> None:
        """Keep an artifact that was verified."""
        write_durably(self._folder / sha256, data)

    def prune(self, used: Collection[str]) -> None:
        """Keep what is used and the five that were used last: a rollback must not need Kafka."""
        unused = [path for path in self._folder.glob("[0-9a-f]*") if path.name not in used]
        unused.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in unused[_KEPT_UNUSED_MODELS:]:
            path.unlink(missing_ok=True)
