"""Why a model answered what it did: each feature's part of the score, and the largest ones in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from everloop_schemas.pipeline import Pipeline

__all__ = ["Explanation", "Wording"]

_MOST_REASONS = 3
Value = bool | int | float | str | None


class Explanation(msgspec.Struct, frozen=True, gc=False):
    """One row's. `base_value` and all `contributions` add up to `score`."""

    space: str
    """What the numbers are of: `log-odds` of a probability, or the predicted value itself."""
    score: float
    base_value: float
    """The score of a row of which nothing is known."""
    contributions: dict[str, float]
    reasons: list[str]
    vector: dict[str, Value]
    """The features' values, as the model was given them."""


@dataclass(frozen=True, slots=True)
class Wording:
    """How a pipeline's features and label are spoken of."""

    label: str
    space: str
    fields: Mapping[str, tuple[str, str]]
    """Each feature's name for people and its unit (empty without one)."""

    @classmethod
    def of(cls, pipeline: Pipeline) -> "Wording":
        """From the pipeline file: a feature that is just a field has that field's description and unit."""
        declared = pipeline.observation.fields
        fields = {}
        for name, expression in pipeline.features.items():
            spec = declared.get(expression.strip())
            fields[name] = ("", "") if spec is None else (spec.description or "", spec.unit or "")
        return cls(
            pipeline.label.name, "log-odds" if pipeline.label.type == "binary" else "value",
            {name: (words or name, unit) for name, (words, unit) in fields.items()},
        )  # fmt: skip

    def explanation(self, vector: Sequence[Value], contributions: Sequence[float]) -> Explanation:
        """One row's; `contributions` [features + 1] end with the base value."""
        *parts, base = contributions
        named = dict(zip(self.fields, parts, strict=True))
        values = dict(zip(self.fields, vector, strict=True))
        return Explanation(self.space, sum(contributions), base, named, self._reasons(values, named), values)

    def _reasons(self, values: Mapping[str, Value], parts: Mapping[str, float]) -> list[str]:
        largest = sorted(parts, key=lambda name: (-abs(parts[name]), name))[:_MOST_REASONS]
        return [self._reason(name, values[name], parts[name]) for name in largest if parts[name]]

    def _reason(self, name: str, value: Value, part: float) -> str:
        words, unit = self.fields[name]
        shown = f"{_shown(value)} {unit}".rstrip() if value is not None else "missing"
        return f"{words} is {shown}: {'raises' if part > 0 else 'lowers'} {self.label} by {abs(part):.3g}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
