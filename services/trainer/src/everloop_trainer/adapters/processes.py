"""Child processes for what needs much memory or long: training, Parquet, verification.

The service itself imports no numerical library, so that it idles small.
"""

import asyncio
import contextlib
import os
import shutil
import sys
from pathlib import Path

import msgspec

from everloop_trainer.application.ports import CrashedError
from everloop_trainer.domain.job import Job, Outcome

__all__ = ["TrainingProcesses", "run_child"]

_LAST_WORDS = 300


async def run_child(module: str, *arguments: str, given: bytes = b"") -> bytes:
    """Run `python -m module arguments…`, its standard input `given`; its standard output.

    Raises CrashedError when it does not end well. A cancelled call kills it.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        str(os.getpid()),
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
        artifact = None if outcome.trained is None else (directory / "artifact.tar").read_bytes()
        return outcome, artifact

    async def _start(self, job: Job, directory: Path) -> Outcome:
        left = directory / "outcome.json"
        if not left.exists():
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "job.json").write_bytes(job.model_dump_json().encode())
            await run_child("everloop_trainer.train", str(directory), str(self._root))
        return Outcome.model_validate_json(left.read_bytes())

    async def rebuild(self, job: Job, name: str) -> Outcome:
        """Do a job that is no run, beside whatever else lies in the directory of this name; then remove it all."""
        directory = self._directory(name)
        try:
            return await self._start(job, directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def forget(self, run_id: str) -> None:
        """Remove the job's directory."""
        shutil.rmtree(self._directory(run_id), ignore_errors=True)

    def _directory(self, run_id: str) -> Path:
        return self._root / "jobs" / run_id


def packed(value: object) -> bytes:
    """For a child's standard input."""
    return msgspec.msgpack.encode(value)
