"""LightGBM's C library through ctypes, without its Python package (32 MB of memory instead of 165).

Predictions are bit-identical with the package's `Booster.predict`.
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

__all__ = ["Booster", "EngineError", "Explainer"]

_FLOAT64 = 1  # C_API_DTYPE_FLOAT64
_ROW_MAJOR = 1
_CONTRIBUTIONS = 3  # C_API_PREDICT_CONTRIB: exact TreeSHAP
_NORMAL = 0  # C_API_PREDICT_NORMAL: the probability of a binary model, the value of a regression
_ALL_TREES = -1
_PARAMETERS = b"num_threads=1 verbosity=-1"

_Library = TypeVar("_Library", bound=ctypes.CDLL)


class EngineError(RuntimeError):
    """LightGBM refused; the message is LightGBM's own."""


class _Model:
    """A model that LightGBM has loaded; freed with the last reference to it."""

    def __init__(self, model_text: bytes) -> None:
        handle, trees, width = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        library = _library()
        _check(library.LGBM_BoosterLoadModelFromString(model_text, ctypes.byref(trees), ctypes.byref(handle)))
        weakref.finalize(self, library.LGBM_BoosterFree, handle).atexit = False
        _check(library.LGBM_BoosterGetNumFeature(handle, ctypes.byref(width)))
        self.trees, self.features = trees.value, width.value
        self._handle = handle


class Booster(_Model):
    """One loaded model, with LightGBM's prepared call for single rows. For one thread."""

    def __init__(self, model_text: bytes) -> None:
        super().__init__(model_text)
        self._row = (ctypes.c_double * self.features)()
        self._output = ctypes.c_double()
        self._written = ctypes.c_int64()
        config = _fast_config(self._handle, self.features)
        # finalizers run newest first: the config, which points into the booster, goes before it
        weakref.finalize(self, _library().LGBM_FastConfigFree, config).atexit = False
        # PyDLL keeps the interpreter's lock: letting it go and taking it back costs more than a row
        self._call = _library_holding_the_lock().LGBM_BoosterPredictForMatSingleRowFast
        self._arguments = (config, self._row, ctypes.byref(self._written), ctypes.byref(self._output))

    def predict(self, rows: Sequence[list[float]]) -> list[float]:
        """The outputs of rows of the model's width; ValueError for another width."""
        return [self._one(row) for row in rows]

    def _one(self, row: list[float]) -> float:
        self._row[:] = row  # type: ignore[assignment]  # ctypes converts each, and checks their number
        if self._call(*self._arguments):
            _check(-1)
        return self._output.value


class Explainer(_Model):
    """One loaded model that says what each feature contributed. For one thread; others run meanwhile."""

    def contributions(self, rows: Sequence[list[float]]) -> list[list[float]]:
        """Exact SHAP values of the raw score [rows][features + 1].

        A row's last is the base value, and its sum the raw score. From Lundberg et al. (2018), "Consistent
        Individualized Feature Attribution for Tree Ensembles". ValueError for a row of another width.
        """
        count, width = len(rows), self.features
        flat = [value for row in rows for value in row]
        given = (ctypes.c_double * (count * width))()
        given[:] = flat  # type: ignore[assignment]  # ctypes converts each, and checks their number
        found = (ctypes.c_double * (count * (width + 1)))()
        written = ctypes.c_int64()
        _check(
            _library().LGBM_BoosterPredictForMat(
                self._handle, given, _FLOAT64, count, width, _ROW_MAJOR, _CONTRIBUTIONS, 0, _ALL_TREES,
                _PARAMETERS, ctypes.byref(written), found,
            )
        )  # fmt: skip
        if written.value != len(found):
            raise EngineError(f"LightGBM gave {written.value} contributions for {count} rows")
        return [list(found[at : at + width + 1]) for at in range(0, len(found), width + 1)]


def _fast_config(handle: ctypes.c_void_p, features: int) -> ctypes.c_void_p:
    config = ctypes.c_void_p()
    _check(
        _library().LGBM_BoosterPredictForMatSingleRowFastInit(
            handle, _NORMAL, 0, _ALL_TREES, _FLOAT64, features, _PARAMETERS, ctypes.byref(config)
        )
    )
    return config


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
