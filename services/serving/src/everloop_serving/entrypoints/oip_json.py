"""Inference requests and answers in JSON, with the binary tensor extension."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from everloop_serving.application.predict import Answer
from everloop_serving.domain.tensors import InvalidInput, Tensor, from_raw, to_raw

__all__ = ["Asked", "InferRequest", "InferResponse", "body_of", "outputs_of", "read_request"]

BINARY_HEADER = b"inference-header-content-length"
_LONGEST_ID = 256
_MOST_DIGITS = 12


class InferInput(msgspec.Struct, frozen=True, gc=False):
    """A tensor as it stands in a request; with flat data it is one (see `Tensor`)."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class AskedOutput(msgspec.Struct, frozen=True):
    """An output that the caller wants."""

    name: str
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct, frozen=True, gc=False):
    """The JSON of a request; members that the protocol does not know are ignored."""

    inputs: list[InferInput]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[AskedOutput] | None = None


class InferOutput(msgspec.Struct, omit_defaults=True):
    """One output: flat data, or as many bytes behind the JSON as `binary_data_size` says."""

    name: str
    datatype: str
    shape: list[int]
    data: Sequence[Any] | None = None
    parameters: dict[str, Any] | None = None


class InferResponse(msgspec.Struct):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str
    outputs: list[InferOutput]


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request, its tensors, and the outputs that go into the answer."""

    id: str | None
    tensors: Sequence[Tensor]
    vector: bool
    explain: bool
    outputs: list[AskedOutput] | None
    binary: bool


_decode = msgspec.json.Decoder(InferRequest).decode
_encode = msgspec.json.Encoder().encode


def read_request(body: bytes, header_length: bytes | None) -> Asked:
    """Read a request; `header_length` is the value of Inference-Header-Content-Length.

    Raises:
        InvalidInput: for anything that is no inference request.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    try:
        request = _decode(body if length == len(body) else body[:length])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the body is no inference request: {error}") from None
    if request.id is not None and not 0 < len(request.id) <= _LONGEST_ID:
        raise InvalidInput(f"'id' must have 1 to {_LONGEST_ID} characters")
    return Asked(
        id=request.id,
        tensors=_tensors(request.inputs, body, length),
        vector=request.parameters.get("vector") is True,
        explain=request.parameters.get("explain") is True or _names(request.outputs, "explanation"),
        outputs=request.outputs,
        binary=request.parameters.get("binary_data_output") is True,
    )


def _names(outputs: Sequence[AskedOutput] | None, name: str) -> bool:
    return outputs is not None and any(output.name == name for output in outputs)


def _length(header: bytes, body_bytes: int) -> int:
    if not header.isdigit() or len(header) > _MOST_DIGITS or int(header) > body_bytes:
        raise InvalidInput("Inference-Header-Content-Length is no length within the body")
    return int(header)


def _tensors(inputs: Sequence[InferInput], body: bytes, json_length: int) -> Sequence[Tensor]:
    for given in inputs:
        data = given.data
        if data is None or (data and type(data[0]) is list):
            return _converted(inputs, memoryview(body)[json_length:])
    _check_all_taken(len(body) - json_length)
    return cast("Sequence[Tensor]", inputs)  # with a tensor's members; copies would cost three microseconds


def _converted(inputs: Sequence[InferInput], binary: memoryview) -> list[Tensor]:
    """Tensors from nested data or from the bytes behind the JSON."""
    tensors = []
    for given in inputs:
        if given.data is not None:
            data = _flat(given) if given.data and type(given.data[0]) is list else given.data
            tensors.append(Tensor(given.name, given.datatype, given.shape, data))
            continue
        size = given.parameters.get("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(binary):
            raise InvalidInput(
                f"input {given.name!r} has neither data nor as many bytes behind the JSON as it says"
            )
        values = from_raw(given.name, given.datatype, bytes(binary[:size]))
        tensors.append(Tensor(given.name, given.datatype, given.shape, values))
        binary = binary[size:]
    _check_all_taken(len(binary))
    return tensors


def _check_all_taken(bytes_left: int) -> None:
    if bytes_left:
        raise InvalidInput(f"{bytes_left} bytes behind the JSON belong to no input")


def _flat(given: InferInput) -> list[Any]:
    """Nested data, as the protocol allows it, row by row."""
    flat: list[Any] = []
    for row in given.data or ():
        if type(row) is not list:
            raise InvalidInput(f"input {given.name!r} mixes nested and flat data")
        flat.extend(row)
    return flat


def outputs_of(
    answer: Answer, *, vector: bool, names: Sequence[str] | None
) -> list[tuple[str, str, list[Any]]]:
    """The outputs that were asked for: name, datatype and one value per row.

    Raises:
        InvalidInput: for an output that the model does not have.
    """
    own = answer.choice.model.output_name
    known: dict[str, tuple[str, list[Any]]] = {own: ("FP64", answer.outputs)}
    if vector or "vector" in (names or ()):
        names_of = answer.choice.model.feature_names
        rows = [dict(zip(names_of, values, strict=True)) for values in answer.vectors]
        known["vector"] = ("BYTES", [_encode(row).decode() for row in rows])
    if answer.explanations is not None:
        known["explanation"] = ("BYTES", [_encode(each).decode() for each in answer.explanations])
    for name in names or ():
        if name not in known:
            raise InvalidInput(f"output {name!r} is not known; the model has {own}, vector, explanation")
    wanted = known if not names else dict.fromkeys([*names, *(name for name in known if name != own)])
    return [(name, *known[name]) for name in wanted]


def body_of(asked: Asked, answer: Answer, request_id: str) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON part where raw outputs stand behind it."""
    model = answer.choice.model
    if asked.outputs is None and not asked.binary and not asked.vector and not asked.explain:
        outputs = [InferOutput(model.output_name, "FP64", [len(answer.outputs)], answer.outputs)]
        return _encode(InferResponse(model.name, str(model.model_version), request_id, outputs)), None
    outputs, raw = _outputs(asked, answer)
    head = _encode(InferResponse(model.name, str(model.model_version), request_id, outputs))
    return (head + b"".join(raw), len(head)) if raw else (head, None)


def _outputs(asked: Asked, answer: Answer) -> tuple[list[InferOutput], list[bytes]]:
    """The outputs asked for, and the raw values of those that are wanted in binary."""
    names = None if asked.outputs is None else [output.name for output in asked.outputs]
    raw_names = {o.name for o in asked.outputs or () if o.parameters.get("binary_data", asked.binary) is True}
    outputs, raw = [], []
    for name, datatype, values in outputs_of(answer, vector=asked.vector, names=names):
        output = InferOutput(name, datatype, [len(values)])
        if name in raw_names or (not names and asked.binary):
            raw.append(to_raw(datatype, values))
            output.parameters = {"binary_data_size": len(raw[-1])}
        else:
            output.data = values
        outputs.append(output)
    return outputs, raw
