"""How serving and its models describe themselves, in the words of the protocol and of Triton's extensions."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from everloop_serving.application.loaded_model import LoadedModel
from everloop_serving.application.models import Models
from everloop_serving.metrics import HotMetrics

__all__ = [
    "EXTENSIONS", "PLATFORM", "SERVER", "model_config", "model_metadata", "server_metadata", "statistics",
]  # fmt: skip

SERVER = "everloop-serving"
PLATFORM = "lightgbm"
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_TYPES = {"BYTES": "TYPE_STRING"}


def server_metadata() -> dict[str, Any]:
    """The server, as the protocol describes it."""
    return {"name": SERVER, "version": version(SERVER), "extensions": list(EXTENSIONS)}


def model_metadata(model: LoadedModel, versions: Sequence[int]) -> dict[str, Any]:
    """A model, as the protocol describes it."""
    return {
        "name": model.name,
        "versions": [str(number) for number in versions],
        "platform": PLATFORM,
        "inputs": model.inputs.metadata(),
        "outputs": [{"name": model.output_name, "datatype": "FP64", "shape": [-1]}],
    }


def model_config(model: LoadedModel) -> dict[str, Any]:
    """A model's configuration, as Triton's extension describes it. Tensors are of one dimension, the rows."""
    described = model_metadata(model, [])
    inputs, outputs = (
        [
            {"name": tensor["name"], "data_type": _data_type(tensor["datatype"]), "dims": [-1]}
            for tensor in described[kind]
        ]
        for kind in ("inputs", "outputs")
    )
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "version_policy": {"specific": {"versions": [model.model_version]}},
        "max_batch_size": 0,
        "input": inputs,
        "output": outputs,
    }


def _data_type(datatype: str) -> str:
    return _TYPES.get(datatype, f"TYPE_{datatype}")


def statistics(
    models: Models, metrics: HotMetrics, names: Sequence[str], wanted: str | None
) -> dict[str, Any]:
    """What models answered since the start, all their versions or the wanted one, by Triton's extension.

    Raises:
        UnknownModel: when a wanted version is not loaded.
    """
    found = []
    for name in names:
        arms = models.arms(name)
        loaded = sorted(arms.by_version) if arms is not None else []
        numbers = loaded if wanted is None else [models.version(name, wanted).model_version]
        found += [_statistics(metrics, name, number) for number in numbers]
    return {"model_stats": found}


def _statistics(metrics: HotMetrics, model: str, number: int) -> dict[str, Any]:
    requests, rows, seconds = metrics.of(model, number)
    answered = {"count": requests, "ns": round(seconds * 1e9)}
    return {
        "name": model,
        "version": str(number),
        "inference_count": rows,
        "execution_count": requests,
        "inference_stats": {"success": answered, "compute_infer": answered},
    }
