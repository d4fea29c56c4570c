"""The model's settings: the pipeline's, overridden for one run by whoever asked for it."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from everloop_schemas.events import Value

__all__ = ["Parameters", "UnknownParameterError", "seed_of"]

_LIMITS: Mapping[str, tuple[float, float]] = {
    "trees": (1, 10_000),
    "leaves": (2, 4_096),
    "learning_rate": (1e-6, 1.0),
    "min_data_in_leaf": (1, 1_000_000),
}


class UnknownParameterError(ValueError):
    """A parameter that does not exist, or a value it cannot take; the message says what it can."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """`training.model` of the pipeline file."""

    trees: int
    leaves: int
    learning_rate: float
    min_data_in_leaf: int

    def overridden(self, by: Mapping[str, Value]) -> "Parameters":
        """These settings with some replaced. Raises UnknownParameterError."""
        checked: dict[str, Any] = {name: _checked(name, value) for name, value in by.items()}
        return replace(self, **checked)

    def as_values(self) -> dict[str, Value]:
        """For an event."""
        return asdict(self)


def check(overrides: Mapping[str, Value]) -> None:
    """Raise UnknownParameterError for the first override that no run could use."""
    for name, value in overrides.items():
        _checked(name, value)


def _checked(name: str, value: Value) -> int | float:
    if name not in _LIMITS:
        known = ", ".join(field.name for field in fields(Parameters))
        raise UnknownParameterError(f"{name} is no parameter of a run; there are {known}")
    low, high = _LIMITS[name]
    whole = name != "learning_rate"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise UnknownParameterError(
            f"{name} must be {'a whole number' if whole else 'a number'}, not {value!r}"
        )
    if not low <= value <= high:
        raise UnknownParameterError(f"{name} must be from {low:g} to {high:g}, not {value!r}")
    return value


def seed_of(run_id: str) -> int:
    """A run's random seed, from its id: 31 bits."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4], "big") >> 1
