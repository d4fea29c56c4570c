"""A second tree engine, several times as fast as LightGBM's: lignum, where it is installed.

Its trees take a fraction of the memory that LightGBM's do, so that they stay in the processor's caches. It is
young: a model is answered by it only after the sandbox saw it give LightGBM's bits on this very model
(docs/decisions/0020).
"""

import importlib.util
import os
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["FastTrees", "is_installed"]

_LARGEST = sys.float_info.max
_INFINITE = float("inf")
_ONE_THREAD = 1


def is_installed() -> bool:
    """Whether there is such an engine; it is imported, and numpy with it, for the first model."""
    return importlib.util.find_spec("lignum") is not None


class FastTrees:
    """One loaded model."""

    def __init__(self, model_text: bytes) -> None:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's; a thread's buffers take 30 MB
        import lignum  # noqa: PLC0415  (25 MB with numpy: only where it is used)
        import numpy as np  # noqa: PLC0415

        with _file_of(model_text) as path:
            self._model: Any = lignum.load(path)
        self._predict = self._model._c_model.predict  # noqa: SLF001  (its wrapper costs as much as four rows)
        self._matrix = np.frombuffer
        self.features = int(self._model._c_model.n_features)  # noqa: SLF001

    def predict(self, rows: Sequence[list[float]]) -> list[float]:
        """The outputs of rows of the model's width; ValueError for another width."""
        flat: list[float] = []
        for row in rows:
            if len(row) != self.features:
                raise ValueError(f"a row must have {self.features} values")
            flat += row
        if _INFINITE in flat:
            # lignum takes it for a missing value; LightGBM's thresholds tell it from no other large number
            flat = [_LARGEST if value == _INFINITE else value for value in flat]
        matrix = self._matrix(array("d", flat)).reshape(len(rows), self.features)
        outputs: list[float] = self._predict(matrix, False, _ONE_THREAD, "serial").tolist()  # noqa: FBT003
        return outputs


@contextmanager
def _file_of(data: bytes) -> Iterator[str]:
    """A path to read the bytes from: of memory where the system has that, else of a temporary file."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("model")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            yield f"/proc/self/fd/{descriptor}"
        return
    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        file.write(data)
        file.flush()
        yield file.name
