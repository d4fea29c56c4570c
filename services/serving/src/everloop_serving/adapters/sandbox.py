"""Tries a model in a process of its own, before this one loads it."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from everloop_serving.adapters.sandbox_child import Task, Verdict
from everloop_serving.application.ports import ModelRefused, NotNow, Trial

__all__ = ["Sandbox"]

_LEAST_MEMORY_BYTES = 1 << 30
_MEMORY_PER_MODEL_BYTE = 20


class _Ended(ModelRefused):
    """The process ended without a verdict: LightGBM may be to blame, or the other engine."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Runs `sandbox_child` under limits of time and memory."""

    wall_seconds: float = 30.0
    cpu_seconds: int = 20
    fast_engine: bool = True
    """Whether the fast engine is tried at all."""

    async def trial(
        self, model_text: bytes, *, task: str, features: int, rows: Sequence[Sequence[float]]
    ) -> Trial:
        """The model's outputs for `rows`, from a process that also checked the model's structure.

        Raises:
            ModelRefused: when the model is unsound, crashes or takes too long.
        """
        work = Task(
            features=features,
            task=task,
            fast_engine=self.fast_engine,
            rows=[[float(cell).hex() for cell in row] for row in rows],
            cpu_seconds=self.cpu_seconds,
            memory_bytes=max(_LEAST_MEMORY_BYTES, _MEMORY_PER_MODEL_BYTE * len(model_text)),
        )
        try:
            verdict = await self._verdict(work, model_text)
        except _Ended as error:
            if not work.fast_engine:
                raise
            verdict = await self._verdict(replace(work, fast_engine=False), model_text)
            verdict = replace(verdict, fast_engine=f"with the other engine {error}")
        if verdict.error is not None:
            raise ModelRefused(verdict.error)
        return Trial([float.fromhex(output) for output in verdict.outputs], verdict.fast_engine)

    async def _verdict(self, work: Task, model_text: bytes) -> Verdict:
        return _read(*await self._run(msgspec.json.encode(work) + b"\n" + model_text))

    async def _run(self, stdin: bytes) -> tuple[int, bytes, bytes]:
        try:
            process = await self._start(stdin)
        except OSError as error:
            raise NotNow(f"the sandbox cannot be started: {error.strerror}") from error
        try:
            stdout, stderr = await asyncio.wait_for(process.communicate(), self.wall_seconds)
        except TimeoutError:
            raise _Ended(f"loading takes longer than {self.wall_seconds:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, stdout, stderr

    async def _start(self, stdin: bytes) -> asyncio.subprocess.Process:
        """Start the child; it reads a file, for a pipe's buffers would keep the model for long."""
        with tempfile.TemporaryFile() as file:
            await asyncio.to_thread(file.write, stdin)
            file.seek(0)
            return await asyncio.create_subprocess_exec(
                sys.executable,
                # -B: bytecode that the limit on files cuts off would break the next process's imports
                *("-I", "-B", "-m", "everloop_serving.adapters.sandbox_child"),
                stdin=file,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
            )


def _environment() -> dict[str, str]:
    """Nothing of ours but where the system's libraries are: the child must not see secrets."""
    library_path = os.environ.get("LD_LIBRARY_PATH")
    found = {"LD_LIBRARY_PATH": library_path} if library_path else {}
    return {"OMP_NUM_THREADS": "1", "PATH": os.defpath, **found}


def _read(code: int, stdout: bytes, stderr: bytes) -> Verdict:
    if code < 0:
        raise _Ended(f"loading ends the sandbox by {signal.Signals(-code).name}")
    try:
        return msgspec.json.decode(stdout, type=Verdict)
    except msgspec.DecodeError:
        words = stderr.decode("utf-8", "replace").strip().splitlines() or ["no further detail"]
        raise _Ended(f"the sandbox failed with status {code}: {words[-1][:300]}") from None
