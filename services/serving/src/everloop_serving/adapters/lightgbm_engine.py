"""LightGBM's C library through ctypes, without its Python package (32 MB of memory instead of 165).

Predictions are bit-identical with `Booster.predict`. A `Booster` here may be shared; a `RowPredictor` owns
its buffers and its FastConfig and belongs to one thread.
"""

import ctypes
import importlib.util
import os
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

__all__ = ["Booster", "EngineError", "RowPredictor"]

_FLOAT64 = 1  # C_API_DTYPE_FLOAT64
_NORMAL = 0  # C_API_PREDICT_NORMAL: the probability of a binary model, the value of a regression
_ALL_TREES = -1
_ROW_MAJOR = 1
_PARAMETERS = b"num_threads=1 verbosity=-1"

_Library = TypeVar("_Library", bound=ctypes.CDLL)


class EngineError(RuntimeError):
    """LightGBM refused; the message is LightGBM's own."""


class Booster:
    """One loaded model; its memory is freed with the last reference to it or to one of its predictors."""

    def __init__(self, model_text: bytes) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        trees = ctypes.c_int()
        _check(
            self._library.LGBM_BoosterLoadModelFromString(
                model_text, ctypes.byref(trees), ctypes.byref(self._handle)
            )
        )
        weakref.finalize(self, self._library.LGBM_BoosterFree, self._handle).atexit = False
        self.trees = trees.value
        width = ctypes.c_int()
        _check(self._library.LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(width)))
        self.features = width.value

    def row_predictor(self) -> "RowPredictor":
        """A predictor of single rows for the calling thread."""
        return RowPredictor(self)

    def predict(self, rows: Sequence[Sequence[float]]) -> list[float]:
        """The outputs of many rows at once. Other threads run meanwhile."""
        count = len(rows)
        flat = (ctypes.c_double * (count * self.features))(*[x for row in rows for x in row])
        outputs = (ctypes.c_double * count)()
        written = ctypes.c_int64()
        _check(
            self._library.LGBM_BoosterPredictForMat(
                self._handle, flat, _FLOAT64, count, self.features, _ROW_MAJOR, _NORMAL, 0, _ALL_TREES,
                _PARAMETERS, ctypes.byref(written), outputs,
            )
        )  # fmt: skip
        if written.value != count:
            raise EngineError(f"LightGBM gave {written.value} outputs for {count} rows")
        return list(outputs)

    def fast_config(self) -> ctypes.c_void_p:
        """LightGBM's prepared call for single rows, to be freed with LGBM_FastConfigFree."""
        config = ctypes.c_void_p()
        _check(
            self._library.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._handle,
                _NORMAL,
                0,
                _ALL_TREES,
                _FLOAT64,
                self.features,
                _PARAMETERS,
                ctypes.byref(config),
            )
        )
        return config


class RowPredictor:
    """Answers one row at a time through LightGBM's fast path. For one thread only."""

    def __init__(self, booster: Booster) -> None:
        self._booster = booster  # the config points into it
        self._row = (ctypes.c_double * booster.features)()
        self._output = ctypes.c_double()
        self._written = ctypes.c_int64()
        config = booster.fast_config()
        weakref.finalize(self, _library().LGBM_FastConfigFree, config).atexit = False
        # PyDLL keeps the interpreter's lock: letting it go and taking it back costs more than a row
        self._call = _library_holding_the_lock().LGBM_BoosterPredictForMatSingleRowFast
        self._arguments = (config, self._row, ctypes.byref(self._written), ctypes.byref(self._output))

    def predict(self, row: list[float]) -> float:
        """The output of one row of the model's width."""
        self._row[:] = row  # type: ignore[assignment]  # ctypes converts each, and checks their number
        if self._call(*self._arguments):
            _check(-1)
        return self._output.value


def _check(code: int) -> None:
    if code:
        message = _library().LGBM_GetLastError()
        raise EngineError(message.decode("utf-8", "replace"))


@cache
def _library() -> ctypes.CDLL:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return _declared(ctypes.CDLL(str(_library_path())))


@cache
def _library_holding_the_lock() -> ctypes.PyDLL:
    return _declared(ctypes.PyDLL(str(_library_path())))


def _declared(library: _Library) -> _Library:
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    signatures = {
        "LGBM_BoosterLoadModelFromString": [text, pointer, pointer],
        "LGBM_BoosterGetNumFeature": [pointer, pointer],
        "LGBM_BoosterFree": [pointer],
        "LGBM_BoosterPredictForMat": [
            pointer, pointer, number, ctypes.c_int32, ctypes.c_int32, number, number, number, number, text,
            pointer, pointer,
        ],
        "LGBM_BoosterPredictForMatSingleRowFastInit": [
            pointer, number, number, number, number, ctypes.c_int32, text, pointer,
        ],
        "LGBM_BoosterPredictForMatSingleRowFast": [pointer, pointer, pointer, pointer],
        "LGBM_FastConfigFree": [pointer],
    }  # fmt: skip
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, number
    library.LGBM_GetLastError.argtypes, library.LGBM_GetLastError.restype = [], text
    return library


def _library_path() -> Path:
    """The shared library of the installed `lightgbm` distribution, found without importing it."""
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise EngineError("the distribution 'lightgbm' is not installed")
    name = {"darwin": "lib_lightgbm.dylib", "win32": "lib_lightgbm.dll"}.get(sys.platform, "lib_lightgbm.so")
    for folder in ("lib", "bin", "."):
        path = Path(spec.origin).parent / folder / name
        if path.exists():
            return path
    raise EngineError(f"{name} is not in the installed 'lightgbm' distribution")
