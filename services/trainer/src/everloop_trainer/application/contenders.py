"""Models as a training meets them: fitted, loaded, or of another pipeline version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from everloop_trainer.domain.dataset import Column, Dataset, Vectors
from everloop_trainer.domain.matrix import Categories, encode
from everloop_trainer.domain.parameters import Parameters
from everloop_trainer.domain.positions import find

__all__ = ["Contender", "Elsewhere", "Fitted", "Learner", "Model"]

Floats = NDArray[np.float64]


class Model(Protocol):
    """A fitted model."""

    def predict(self, matrix: Floats) -> Floats:
        """Outputs [rows]: a probability or a number."""
        ...

    def text(self) -> str:
        """The model as it is published."""
        ...


class Learner(Protocol):
    """What fits models, with the same result for the same arguments."""

    @property
    def objective(self) -> str:
        """What is minimised."""
        ...

    @property
    def libraries(self) -> Mapping[str, str]:
        """Versions that the result depends on."""
        ...

    def fit(
        self, matrix: Floats, target: Floats, columns: Sequence[Column], parameters: Parameters, seed: int
    ) -> Model:
        """Fit one model on rows [n, features]."""
        ...


class Contender(Protocol):
    """A model that can be asked about a dataset's rows."""

    def predict(self, dataset: Dataset) -> Floats:
        """Outputs [rows]; NaN where it cannot know."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model with the categories it knows, for datasets of its own pipeline version."""

    model: Model
    categories: Categories

    def predict(self, dataset: Dataset) -> Floats:
        """Outputs for a dataset's rows."""
        return self.model.predict(encode(dataset.columns, self.categories))


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A model of another pipeline version: asked about the same observations by that version's vectors.

    Without it no changed pipeline could ever show that it is better than what it replaces.
    """

    fitted: Fitted
    vectors: Vectors

    def predict(self, dataset: Dataset) -> Floats:
        """Outputs for a dataset's rows; NaN where that version has no vector of the observation."""
        wanted, vectors = (dataset.partition, dataset.offset), self.vectors
        found = find(wanted, (vectors.partition, vectors.offset))
        columns = tuple(column.take(found[found >= 0]) for column in vectors.columns)
        outputs = np.full(dataset.rows, np.nan)
        outputs[found >= 0] = self.fitted.model.predict(encode(columns, self.fitted.categories))
        return outputs
