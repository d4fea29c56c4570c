"""What a training's data was like, in the few figures per field that people compare."""

from collections.abc import Mapping
from typing import Any

from everloop_schemas.events import DataProfiled, FieldProfile, MeasuredShare

__all__ = ["figures"]

_NUMBERS = ("mean", "minimum", "low", "median", "high", "maximum")
_IS = "is:"


def figures(profiled: DataProfiled) -> dict[str, Any]:
    """One training's data: how much, from when to when, and each field's figures."""
    return {
        "run_id": profiled.run_id,
        "pipeline_version": profiled.pipeline_version,
        "profiled_at": profiled.profiled_at,
        "observations": profiled.observations,
        "labels": profiled.labels,
        "first_event_time": profiled.first_event_time,
        "last_event_time": profiled.last_event_time,
        "late_seconds": profiled.late_seconds,
        "fields": {name: _field(field) for name, field in profiled.fields.items()},
    }


def _field(field: FieldProfile) -> dict[str, Any]:
    """The share of null (0 where null is not allowed), and what the field's type has beside it."""
    numbers = {name: value for name in _NUMBERS if (value := getattr(field, name)) is not None}
    categories = {
        name.removeprefix(_IS): measured for name, measured in field.measures.items() if name.startswith(_IS)
    }
    shares = _shares(categories)
    return {
        "of": field.kind,
        "null": _share(field.measures.get("null")),
        **numbers,
        **({"true": _share(field.measures["true"])} if "true" in field.measures else {}),
        **({"shares": shares} if shares else {}),
        **({"values": len(field.known)} if field.known is not None else {}),
    }


def _shares(measures: Mapping[str, MeasuredShare]) -> dict[str, float]:
    """The most frequent categories, the most frequent first."""
    ranked = sorted(measures, key=lambda name: (-measures[name].window.share, name))
    return {name: measures[name].window.share for name in ranked}


def _share(measured: MeasuredShare | None) -> float:
    return 0.0 if measured is None else measured.window.share
