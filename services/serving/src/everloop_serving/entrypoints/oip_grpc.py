"""Inference requests and answers as protocol buffers."""

from collections.abc import Callable, Sequence
from typing import Any

from everloop_serving.application.predict import Answer
from everloop_serving.domain.tensors import InvalidInput, Tensor, from_raw, to_raw
from everloop_serving.entrypoints.oip_json import outputs_of
from everloop_serving.proto import inference_pb2 as pb

__all__ = ["response_of", "tensors_of", "wants_explanation"]

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def tensors_of(request: pb.ModelInferRequest) -> list[Tensor]:
    """The request's tensors, from their contents or from the raw ones.

    Raises:
        InvalidInput: for contents that do not fit their datatype.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    return [
        Tensor(
            given.name,
            given.datatype,
            given.shape,
            from_raw(given.name, given.datatype, raw[index]) if raw else _contents(given),
        )
        for index, given in enumerate(request.inputs)
    ]


def _contents(given: pb.ModelInferRequest.InferInputTensor) -> Sequence[Any]:
    field = _CONTENTS.get(given.datatype)
    if field is None:
        raise InvalidInput(f"input {given.name!r}: {given.datatype!r} values can only be sent raw, if at all")
    values: Sequence[Any] = getattr(given.contents, field)
    if field != "bytes_contents":
        return values
    try:
        return [value.decode("utf-8") for value in values]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"input {given.name!r}: an element is not UTF-8 text") from error


def response_of(request: pb.ModelInferRequest, answer: Answer, request_id: str) -> pb.ModelInferResponse:
    """The answer; raw outputs for raw inputs."""
    model = answer.choice.model
    response = pb.ModelInferResponse(
        model_name=model.name, model_version=str(model.model_version), id=request_id
    )
    names = [output.name for output in request.outputs]
    vector = _flag(request, "vector")
    add: Callable[[pb.ModelInferResponse, str, list[Any]], Any]
    add = _add_raw if request.raw_input_contents else _add_contents
    for name, datatype, values in outputs_of(answer, vector=vector, names=names):
        response.outputs.add(name=name, datatype=datatype, shape=[len(values)])
        add(response, datatype, values)
    return response


def wants_explanation(request: pb.ModelInferRequest) -> bool:
    """Whether the parameter or the output of that name is asked for."""
    return _flag(request, "explain") or any(output.name == "explanation" for output in request.outputs)


def _flag(request: pb.ModelInferRequest, name: str) -> bool:
    return request.parameters[name].bool_param if name in request.parameters else False


def _add_raw(response: pb.ModelInferResponse, datatype: str, values: list[Any]) -> None:
    response.raw_output_contents.append(to_raw(datatype, values))


def _add_contents(response: pb.ModelInferResponse, datatype: str, values: list[Any]) -> None:
    contents = response.outputs[-1].contents
    if datatype == "BYTES":
        contents.bytes_contents.extend(value.encode() for value in values)
    else:
        contents.fp64_contents.extend(values)
