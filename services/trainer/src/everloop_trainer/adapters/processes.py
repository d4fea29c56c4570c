"""Child processes for what needs much memory or long: training, Parquet, verification.

The service itself imports no numerical library, so that it idles small.
"""

import asyncio
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import msgspec

from everloop_trainer.application.ports import CrashedError
from everloop_trainer.domain.job import Job, Outcome

__all__ = ["TrainingProcesses", "run_child"]

REBUILD_PREFIX = "verify-"
_LAST_WORDS = 300
_OLD_SECONDS = 6 * 3600


async def run_child(job: str, *arguments: str, given: bytes = b"") -> bytes:
    """Do a job of `everloop_trainer.child`, its standard input `given`; its standard output.

    Raises CrashedError when it does not end well. A cancelled call kills it.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "everloop_trainer.child",
        job,
        str(os.getpid()),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        output, complaint = await child.communicate(given)
    finally:
        await _end(child)
    if child.returncode != 0:
        raise CrashedError(_last_words(child.returncode, complaint))
    return output


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _last_words(code: int | None, complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
    return f"exit code {code}: {lines[-1][:_LAST_WORDS]}"


class TrainingProcesses:
    """`application.ports.Trainings`: one process a job, in a directory of its own under `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def outcome(self, job: Job) -> tuple[Outcome, bytes | None]:
        """Start the process, unless an earlier attempt has finished the job already."""
        directory = self._directory(job.run_id)
        outcome = await self._start(job, directory)
        artifact = None if outcome.trained is None else _bytes(directory / "artifact.tar")
        return outcome, artifact

    async def _start(self, job: Job, directory: Path) -> Outcome:
        left = directory / "outcome.json"
        if not _ready(directory, job):
            await run_child("train", str(directory), str(self._root))
        return Outcome.model_validate_json(_bytes(left))

    async def rebuild(self, job: Job, name: str) -> Outcome:
        """Do a job that is no run in the directory of this name; then remove it with all that lies there."""
        directory = self._directory(name)
        try:
            return await self._start(job, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def forget(self, run_id: str) -> None:
        """Remove the job's directory."""
        shutil.rmtree(self._directory(run_id), ignore_errors=True)

    def forget_others(self, run_ids: set[str]) -> None:
        """Remove what jobs of other runs left; a verification's directory only when it is old."""
        for directory in (self._root / "jobs").glob("*"):
            rebuilding = directory.name.startswith(REBUILD_PREFIX) and not _old(directory)
            if directory.name not in run_ids and not rebuilding:
                shutil.rmtree(directory, ignore_errors=True)

    def _directory(self, run_id: str) -> Path:
        return self._root / "jobs" / run_id


def _ready(directory: Path, job: Job) -> bool:
    """Whether an earlier attempt has left its outcome; otherwise the job is written for the next."""
    if (directory / "outcome.json").exists():
        return True
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "job.json").write_bytes(job.model_dump_json().encode())
    return False


def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _old(directory: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - directory.stat().st_mtime > _OLD_SECONDS
    return False


def packed(value: object) -> bytes:
    """For a child's standard input."""
    return msgspec.msgpack.encode(value)
