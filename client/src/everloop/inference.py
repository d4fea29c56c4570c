"""One prediction as the Open Inference Protocol writes it."""

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


def request_of(fields: Mapping[str, Any], id: str | None) -> dict[str, Any]:  # noqa: A002  # the protocol's word
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
    return {**({"id": id} if id else {}), "inputs": inputs, "parameters": {"vector": True}}


def response_of(body: Mapping[str, Any]) -> Prediction:
    """The first output is the prediction; the vector comes back beside it."""
    first = body["outputs"][0]
    vector = body.get("parameters", {}).get("vector", {})
    return Prediction(
        id=str(body.get("id", "")),
        output=float(first["data"][0]),
        model_version=str(body.get("model_version", "")),
        vector=vector if isinstance(vector, dict) else {"values": vector},
    )


def _datatype(name: str, value: Any) -> str:
    for kind, datatype in ((bool, "BOOL"), (int, "INT64"), (float, "FP64"), (str, "BYTES")):
        if isinstance(value, kind):
            return datatype
    raise UsageError(f"{name} is a {type(value).__name__}; a field is text, a number, true, false or null.")
