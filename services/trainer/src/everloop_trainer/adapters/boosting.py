"""LightGBM, set up so that the same rows, settings and seed give the same model text on any machine."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Column
from everloop_trainer.domain.metrics import Task
from everloop_trainer.domain.parameters import Parameters

__all__ = ["LightGbm", "LoadedModel"]

Floats = NDArray[np.float64]
_OBJECTIVES: Mapping[Task, str] = {"binary": "binary", "number": "regression"}


class LoadedModel:
    """A LightGBM booster as a Model."""

    def __init__(self, booster: lightgbm.Booster) -> None:
        self._booster = booster

    @classmethod
    def from_text(cls, text: str) -> "LoadedModel":
        """Load what `text()` gave."""
        return cls(lightgbm.Booster(model_str=text))

    def predict(self, matrix: Floats) -> Floats:
        """Outputs [rows]."""
        outputs: Floats = np.asarray(self._booster.predict(matrix, num_threads=1), dtype=np.float64)
        return outputs

    def text(self) -> str:
        """LightGBM's text format."""
        text: str = self._booster.model_to_string()
        return text


class LightGbm:
    """Fits gradient-boosted trees on one thread: sums in a fixed order are what makes them reproducible."""

    def __init__(self, task: Task) -> None:
        self.objective = _OBJECTIVES[task]
        self.libraries = {"lightgbm": version("lightgbm"), "numpy": version("numpy")}

    def fit(
        self, matrix: Floats, target: Floats, columns: Sequence[Column], parameters: Parameters, seed: int
    ) -> LoadedModel:
        """Fit on rows [n, features]; category columns are LightGBM categories."""
        data = lightgbm.Dataset(
            matrix,
            target,
            feature_name=[column.name for column in columns],
            categorical_feature=[i for i, column in enumerate(columns) if column.type == "category"],
            params=self._settings(parameters, seed),
        )
        return LoadedModel(lightgbm.train(self._settings(parameters, seed), data, parameters.trees))

    def _settings(self, parameters: Parameters, seed: int) -> dict[str, Any]:
        return {
            "objective": self.objective,
            "num_leaves": parameters.leaves,
            "learning_rate": parameters.learning_rate,
            "min_data_in_leaf": parameters.min_data_in_leaf,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": 1,
            "verbosity": -1,
        }
