"""How serving and its models describe themselves."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from everloop_serving.application.loaded_model import LoadedModel

__all__ = ["EXTENSIONS", "PLATFORM", "SERVER", "model_metadata", "server_metadata"]

SERVER = "everloop-serving"
PLATFORM = "lightgbm"
EXTENSIONS = ("binary_tensor_data",)


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
