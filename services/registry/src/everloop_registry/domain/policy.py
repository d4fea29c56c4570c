"""What a pipeline's definition declares about its models: the gates and the rollout."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from everloop_registry.domain.gates import BetterThan, Gate, Limit, SliceRatio
from everloop_registry.domain.pipelines import Definition

__all__ = ["Rollout", "RolloutMode", "declared_gates", "declared_rollout"]

RolloutMode = Literal["direct", "shadow", "canary", "manual"]

_CANARY_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Rollout:
    """How an approved version reaches traffic; `share` (0…1) is a challenger's part of it."""

    mode: RolloutMode
    share: float = 0.0


def declared_gates(definition: Definition) -> list[Gate]:
    """The gates in the order of the file.

    Raises:
        ValueError: for a gate of no known shape: a gate that is not understood must not pass in silence.
    """
    return [_gate(entry) for entry in definition.get("gates") or []]


def declared_rollout(definition: Definition) -> Rollout:
    """The rollout; a canary that names no share takes a tenth."""
    entry = definition.get("rollout") or {}
    wanted = entry.get("mode") or "direct"
    mode: RolloutMode | None = next((known for known in get_args(RolloutMode) if known == wanted), None)
    if mode is None:
        raise ValueError(f"unknown rollout mode {wanted!r}")
    share = entry.get("share")
    return Rollout(mode, (_CANARY_SHARE if share is None else float(share)) if mode == "canary" else 0.0)


def _gate(entry: Mapping[str, Any]) -> Gate:
    metric = entry["metric"]
    if entry.get("better_than") is not None:
        return BetterThan(metric, entry["better_than"], entry.get("confidence"))
    if entry.get("slice") is not None:
        return SliceRatio(metric, entry["slice"], entry["at_most_ratio"])
    if entry.get("at_most") is not None or entry.get("at_least") is not None:
        return Limit(metric, at_most=entry.get("at_most"), at_least=entry.get("at_least"))
    raise ValueError(f"a gate of no known shape: {dict(entry)!r}")
