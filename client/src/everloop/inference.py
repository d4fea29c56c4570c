"""One prediction as the Open Inference Protocol writes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everloop.errors import UsageError

__all__ = ["Prediction", "request_of", "response_of"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer; `output` is a probability for a binary label, else the predicted number."""

    id: str
    output: float
    model_version: str
    vector: dict[str, Any]
    """The features' values that it was made from."""
    explanation: dict[str, Any] | None = None
    """Where it was asked for: `score`, `base_value`, `contributions` by feature, and `reasons` in words."""


def request_of(
    fields: Mapping[str, Any],
    id: str | None,  # noqa: A002  # the protocol's word
    *,
    explain: bool = False,
) -> dict[str, Any]:
    """One tensor a field; a null is left out, which says the same.

    Example:
        >>> request_of({"origin": "EWR"}, "a1")["inputs"]
        [{'name': 'origin', 'datatype': 'BYTES', 'shape': [1], 'data': ['EWR']}]
    """
    inputs = [
        {"name": name, "datatype": _datatype(name, value), "shape": [1], "data": [value]}
        for name, value in fields.items()
        if value is not None
    ]
    asked = {"vector": True, **({"explain": True} if explain else {})}
    return {**({"id": id} if id else {}), "inputs": inputs, "parameters": asked}


def response_of(body: Mapping[str, Any]) -> Prediction:
    """The first output is the prediction; vector and explanation come back beside it, as JSON."""
    first, *others = body["outputs"]
    beside = {output["name"]: json.loads(output["data"][0]) for output in others}
    return Prediction(
        id=str(body.get("id", "")),
        output=float(first["data"][0]),
        model_version=str(body.get("model_version", "")),
        vector=beside.get("vector", {}),
        explanation=beside.get("explanation"),
    )


def _datatype(name: str, value: Any) -> str:
    for kind, datatype in ((bool, "BOOL"), (int, "INT64"), (float, "FP64"), (str, "BYTES")):
        if isinstance(value, kind):
            return datatype
    raise UsageError(f"{name} is a {type(value).__name__}; a field is text, a number, true, false or null.")
