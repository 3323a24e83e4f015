"""Inference over gRPC: messages to requests, responses to messages. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from streamer.serve.kserve.describe import CONFIG_TYPES
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.grpc_messages import MESSAGES
from streamer.serve.kserve.messages import MAX_UNSIGNED, InferAnswer, InferRequest, WantedOutput, read_parameters
from streamer.serve.kserve.tensors import NamedTensor, parse_bytes, parse_numbers, raw_bytes

__all__ = ["encode", "fill", "parse", "text"]

#: The field of a tensor's contents for each datatype. FP16 has none.
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
#: Parameters whose type is checked as in Triton.
KINDS = {
    "sequence_id": ("int64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
    "sequence_position": ("int64_param",),
    "timeout": ("int64_param",),
}


def parse(message: Any) -> tuple[str, str, InferRequest]:
    """Model, version and request of a ``ModelInferRequest``. Raises :class:`KServeError`."""
    parameters = _parameters(message.parameters)
    if isinstance(id := parameters.get("sequence_id"), int):
        parameters["sequence_id"] = id & MAX_UNSIGNED  # it travels as a signed number
    sequence, timeout = read_parameters(parameters)
    outputs = tuple(_output(output) for output in message.outputs)
    request = InferRequest(
        tuple(_inputs(message)),
        text(message.id, "the request's id"),
        sequence,
        timeout,
        outputs,
        binary=True,
        final=parameters.get("triton_enable_empty_final_response") is True,
    )
    return text(message.model_name, "model_name"), text(message.model_version, "model_version"), request


def encode(answer: InferAnswer, *, final: bool = False) -> Any:
    """A ``ModelInferResponse``, with every tensor as bytes. ``final``: it is marked as the request's last response."""
    message = MESSAGES["ModelInferResponse"](
        model_name=answer.model.encode(), model_version=answer.version.encode(), id=answer.id.encode()
    )
    for tensor in answer.outputs:
        message.outputs.add(name=tensor.name.encode(), datatype=tensor.datatype.encode(), shape=tensor.array.shape)
        message.raw_output_contents.append(raw_bytes(tensor.array))
    parameters = {**answer.parameters, "triton_final_response": True} if final else answer.parameters
    for name, value in parameters.items():
        pair = message.parameters.add(key=name.encode())
        if isinstance(value, bool):
            pair.value.bool_param = value
        else:
            pair.value.int64_param = value
    return message


def fill(message: Any, document: Mapping[str, Any]) -> Any:
    """Copy a JSON document into a message with the same names; fields that the message lacks are left out."""
    for name, value in document.items():
        field = message.DESCRIPTOR.fields_by_name.get(name)
        if field is None:
            continue
        if isinstance(value, Mapping):
            getattr(message, name).SetInParent()
            fill(getattr(message, name), value)
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, Mapping):
                    fill(getattr(message, name).add(), item)
                else:
                    getattr(message, name).append(item.encode() if isinstance(item, str) else item)
        elif name == "data_type":
            message.data_type = CONFIG_TYPES[value]
        else:
            setattr(message, name, value.encode() if isinstance(value, str) else value)
    return message


def text(data: bytes, what: str) -> str:
    """Decode UTF-8. Raises :class:`KServeError`."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise KServeError(400, f"{what} is no UTF-8") from None


def _inputs(message: Any) -> Iterable[NamedTensor]:
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        text_ = f"{len(raw)} raw_input_contents for {len(message.inputs)} inputs: all of them or none"
        raise KServeError(400, text_)
    for index, tensor in enumerate(message.inputs):
        name, datatype = text(tensor.name, "an input's name"), text(tensor.datatype, "a datatype")
        if "shared_memory_region" in _parameters(tensor.parameters):
            raise KServeError(501, f"input '{name}' is in shared memory: send its bytes")
        shape = tuple(tensor.shape)
        if raw:
            if tensor.HasField("contents"):
                raise KServeError(400, f"input '{name}' has contents beside raw_input_contents: one of them")
            yield parse_bytes(name, datatype, shape, raw[index])
        elif datatype in CONTENTS:
            yield parse_numbers(name, datatype, shape, list(getattr(tensor.contents, CONTENTS[datatype])))
        else:
            raise KServeError(400, f"input '{name}': {datatype[:20]} must be sent in raw_input_contents")


def _output(output: Any) -> WantedOutput:
    name = text(output.name, "an output's name")
    parameters = _parameters(output.parameters)
    if parameters.get("classification"):
        raise KServeError(501, f"output '{name}': the classification extension is not served, ask for the tensor")
    if "shared_memory_region" in parameters:
        raise KServeError(501, f"output '{name}': shared memory is not served, ask for bytes")
    return WantedOutput(name, True)


def _parameters(pairs: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for pair in pairs:
        key, given = text(pair.key, "a parameter's name"), pair.value.ListFields()
        if not given:
            continue
        field, value = given[-1]
        if key in KINDS and field.name not in KINDS[key]:
            expected = " or ".join(KINDS[key])
            raise KServeError(400, f"invalid value type for '{key}' parameter, expected {expected}.")
        found[key] = text(value, f"the parameter '{key}'") if isinstance(value, bytes) else value
    return found
