"""The process that meets a model first: it checks the text, loads it and answers rows, under limits.

Reads one line of JSON (`Task`) and then the model's text from standard input; writes one line of JSON
(`Verdict`). Floats travel as hexadecimal text: no bit is lost. Whatever kills this process kills no serving.
"""

import os
import resource
import sys

import msgspec

from everloop_serving.adapters.lightgbm_engine import Booster, EngineError
from everloop_serving.domain.model_text import BrokenModel, check_model

__all__ = ["Task", "Verdict"]


class Task(msgspec.Struct, frozen=True):
    """What to check: the width and kind of the model, encoded rows to answer, and the limits."""

    features: int
    task: str
    rows: list[list[str]]
    cpu_seconds: int
    memory_bytes: int


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it: an error in words, or the outputs."""

    error: str | None = None
    outputs: list[str] = []


def _limit(task: Task) -> None:
    """Bound what a hostile model can take: time, memory, files. Yields the core to the serving process."""
    for limit, value in (
        (resource.RLIMIT_CPU, task.cpu_seconds),
        (resource.RLIMIT_AS, task.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    os.nice(10)


def _examine(task: Task, text: bytes) -> Verdict:
    try:
        check_model(text, features=task.features, task=task.task)
        booster = Booster(text)
        predictor = booster.row_predictor()
        outputs = [predictor.predict([float.fromhex(cell) for cell in row]) for row in task.rows]
    except (BrokenModel, EngineError) as error:
        return Verdict(error=str(error))
    except MemoryError:
        return Verdict(error=f"loading takes more than {task.memory_bytes} bytes of memory")
    if booster.features != task.features:
        return Verdict(error=f"LightGBM finds {booster.features} features, the manifest {task.features}")
    return Verdict(outputs=[output.hex() for output in outputs])


def main() -> None:
    """Answer one task."""
    line, _, text = sys.stdin.buffer.read().partition(b"\n")
    task = msgspec.json.decode(line, type=Task)
    _limit(task)
    sys.stdout.buffer.write(msgspec.json.encode(_examine(task, text)) + b"\n")


if __name__ == "__main__":
    main()
