"""The process that meets a model first: it checks the text, loads it and answers rows, under limits.

Reads one line of JSON (`Task`) and then the model's text from standard input; writes one line of JSON
(`Verdict`). Floats travel as hexadecimal text: no bit is lost. Whatever kills this process kills no serving.
"""

import os
import resource
import sys

import msgspec

from everloop_serving.adapters.lightgbm_engine import Booster, EngineError
from everloop_serving.adapters.lignum_engine import FastTrees, is_installed
from everloop_serving.domain.model_text import BrokenModel, check_model
from everloop_serving.domain.replay_rows import replay_rows

__all__ = ["Task", "Verdict", "examine"]


_REPLAYED_ROWS = 1000


class Task(msgspec.Struct, frozen=True):
    """What to check: the width and kind of the model, encoded rows to answer, and the limits."""

    features: int
    task: str
    fast_engine: bool
    rows: list[list[str]]
    cpu_seconds: int
    memory_bytes: int


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it: an error in words, or the outputs."""

    error: str | None = None
    outputs: list[str] = []
    fast_engine: str | None = None
    """Why the fast engine may not answer for this model; None: it gave the same bits."""


def _limit(task: Task, file_bytes: int) -> None:
    """Bound what a hostile model can take: time, memory, files. Yields the core to the serving process."""
    for limit, value in (
        (resource.RLIMIT_CPU, task.cpu_seconds),
        (resource.RLIMIT_AS, task.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, file_bytes),
    ):
        resource.setrlimit(limit, (value, value))
    os.nice(10)


def examine(task: Task, text: bytes) -> Verdict:
    """Check the text, load it, answer the rows, and compare the fast engine."""
    try:
        check_model(text, features=task.features, task=task.task)
        booster = Booster(text)
        rows = [[float.fromhex(cell) for cell in row] for row in task.rows]
        outputs = booster.predict(rows)
    except (BrokenModel, EngineError) as error:
        return Verdict(error=str(error))
    except MemoryError:
        return Verdict(error=f"loading takes more than {task.memory_bytes} bytes of memory")
    if booster.features != task.features:
        return Verdict(error=f"LightGBM finds {booster.features} features, the manifest {task.features}")
    found = [output.hex() for output in outputs]
    return Verdict(outputs=found, fast_engine=_difference(task, text, booster, rows))


def _difference(task: Task, text: bytes, booster: Booster, golden: list[list[float]]) -> str | None:
    """Why the fast engine may not stand in for LightGBM on this model, or None."""
    if not task.fast_engine:
        return "the setting says so"
    if not is_installed():
        return "no other engine is installed"
    rows = golden + replay_rows(text, features=task.features, rows=_REPLAYED_ROWS)
    try:
        answers = FastTrees(text).predict(rows)
    except Exception as error:  # noqa: BLE001  (whatever it cannot do, LightGBM can)
        return f"the other engine fails: {error}"
    pairs = zip(booster.predict(rows), answers, strict=True)
    different = sum(theirs.hex() != ours.hex() for theirs, ours in pairs)
    return f"the other engine answers {different} of {len(rows)} rows differently" if different else None


def main() -> None:
    """Answer one task."""
    line, _, text = sys.stdin.buffer.read().partition(b"\n")
    task = msgspec.json.decode(line, type=Task)
    _limit(task, len(text))
    sys.stdout.buffer.write(msgspec.json.encode(examine(task, text)) + b"\n")


if __name__ == "__main__":
    main()
