"""A pipeline with a field of every type and unit, for tests of single expressions."""

from typing import Any

from everloop_features import Compiled
from everloop_features import compile as compile_features
from everloop_schemas.pipeline import Pipeline, Problem

NOON = 1_403_265_600_000_000  # 2014-06-20T12:00:00Z, a Friday


def result_of(features: dict[str, str], **changes: Any) -> Compiled | list[Problem]:
    definition: dict[str, Any] = {
        "pipeline": "rides",
        "partition_by": ["city"],
        "observation": {
            "event_time": "start",
            "fields": {
                "city": {"type": "category"},
                "driver": {"type": "category", "nullable": True},
                "shared": {"type": "boolean", "nullable": True},
                "distance": {"type": "number", "unit": "mi", "nullable": True},
                "detour": {"type": "number", "unit": "mi", "nullable": True},
                "minutes": {"type": "number", "unit": "min", "nullable": True},
                "speed": {"type": "number", "unit": "mi/min", "nullable": True},
                "area": {"type": "number", "unit": "mi^2", "nullable": True},
                "share": {"type": "number", "unit": "%", "nullable": True},
                "plain": {"type": "number", "nullable": True},
                "booked": {"type": "timestamp", "nullable": True},
            },
        },
        "label": {
            "type": "number",
            "fields": {"fare": {"type": "number", "unit": "usd"}},
            "value": {"paid": "fare"},
        },
        "features": features,
    }
    return compile_features(Pipeline.model_validate({**definition, **changes}))


def compiled(features: dict[str, str], **changes: Any) -> Compiled:
    result = result_of(features, **changes)
    assert isinstance(result, Compiled), [str(problem) for problem in result]
    return result


def problem_of(expression: str) -> Problem:
    result = result_of({"x": expression})
    assert isinstance(result, list), expression
    (problem,) = result
    return problem


def value(expression: str, event_time_us: int = NOON, **fields: Any) -> Any:
    features = compiled({"x": expression})
    return features.vector(fields, event_time_us, features.new_state(1))[0]
