"""Inference over HTTP: a JSON object, followed by binary tensors. No I/O.

Numbers that JSON lacks are written as by Triton, ``NaN`` and ``Infinity``: its clients read them.
"""

from __future__ import annotations

import json
from typing import Any

from streamer.json_words import json_trouble
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.messages import InferAnswer, InferRequest, WantedOutput, read_parameters
from streamer.serve.kserve.tensors import NamedTensor, listed, parse_bytes, parse_numbers, raw_bytes
from streamer.whole import whole

__all__ = ["LENGTH_HEADER", "encode", "parse"]

#: Header with the length of the JSON part of a body with binary tensors.
LENGTH_HEADER = "inference-header-content-length"
MAX_TENSORS = 64
#: Made once: ``json.dumps`` makes an encoder for every call with ``separators``.
_JSON = json.JSONEncoder(separators=(",", ":"))


def parse(body: bytes, json_bytes: int | None) -> InferRequest:
    """Parse a body. ``json_bytes``: the value of :data:`LENGTH_HEADER`, ``None`` without it. Raises
    :class:`KServeError`."""
    if json_bytes is not None and not 0 < json_bytes <= len(body):
        raise KServeError(400, f"Inference-Header-Content-Length is {json_bytes}, and the body has {len(body)} bytes")
    try:
        found = json.loads(body[:json_bytes])
    except (ValueError, RecursionError) as error:
        raise KServeError(400, f"failed to parse the request JSON: {json_trouble(error)[:200]}") from None
    if not isinstance(found, dict):
        raise KServeError(400, "the request JSON is no object")
    parameters = _parameters(found, "the request")
    if reserved := sorted(name for name in parameters if name.startswith("triton_")):
        raise KServeError(400, f"parameters that begin with 'triton_' are reserved: {reserved[0][:60]!r}")
    id = found.get("id", "")
    if not isinstance(id, str):
        raise KServeError(400, "the request's id must be a string")
    binary = _flag(parameters, "binary_data_output", False)
    sequence, timeout = read_parameters(parameters)
    tail = memoryview(body)[len(body) if json_bytes is None else json_bytes :]
    inputs, used = [], 0
    for entry in _entries(found, "inputs"):
        tensor, size = _input(entry, tail[used:])
        inputs.append(tensor)
        used += size
    if used != len(tail):
        raise KServeError(400, f"{len(tail) - used} bytes are behind the last tensor")
    outputs = tuple(_output(entry, binary) for entry in _entries(found, "outputs"))
    return InferRequest(tuple(inputs), id, sequence, timeout, outputs, binary)


def encode(answer: InferAnswer, wanted: InferRequest) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON part if binary tensors follow."""
    asked = {output.name: output.binary for output in wanted.outputs}
    described: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for tensor in answer.outputs:
        entry: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
        # JSON has no numbers of 16 bits in Triton's dialect
        if asked.get(tensor.name, wanted.binary) or tensor.datatype == "FP16":
            tail.append(raw_bytes(tensor.array))
            entry["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            entry["data"] = listed(tensor.array)
        described.append(entry)
    document: dict[str, Any] = {"model_name": answer.model, "model_version": answer.version}
    if answer.id:
        document["id"] = answer.id
    if answer.parameters:
        document["parameters"] = dict(answer.parameters)
    head = _JSON.encode(document | {"outputs": described}).encode()
    return (b"".join([head, *tail]), len(head)) if tail else (head, None)


def _input(entry: dict[str, Any], tail: memoryview) -> tuple[NamedTensor, int]:
    """A tensor, and the number of bytes of ``tail`` that it used."""
    name, datatype, shape = entry.get("name"), entry.get("datatype"), whole(entry.get("shape"))
    if not isinstance(name, str) or not name:
        raise KServeError(400, "an input has no name")
    if not isinstance(datatype, str):
        raise KServeError(400, f"input '{name}' has no datatype")
    if not isinstance(shape, list) or any(isinstance(n, bool) or not isinstance(n, int) for n in shape):
        raise KServeError(400, f"input '{name}' has no shape: a list of integers")
    parameters = _parameters(entry, f"input '{name}'")
    if "shared_memory_region" in parameters:
        raise KServeError(501, f"input '{name}' is in shared memory: send its bytes")
    size = whole(parameters.get("binary_data_size"))
    if size is None:
        if "data" not in entry:
            raise KServeError(400, f"input '{name}' has neither data nor binary_data_size")
        if datatype == "FP16":
            raise KServeError(400, f"input '{name}': FP16 must be sent as bytes (binary_data_size)")
        return parse_numbers(name, datatype, tuple(shape), entry["data"]), 0
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(tail):
        raise KServeError(400, f"input '{name}': binary_data_size is {str(size)[:20]}, and {len(tail)} bytes are left")
    return parse_bytes(name, datatype, tuple(shape), tail[:size]), size


def _output(entry: dict[str, Any], binary: bool) -> WantedOutput:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise KServeError(400, "a requested output has no name")
    parameters = _parameters(entry, f"output '{name}'")
    if parameters.get("classification"):
        raise KServeError(501, f"output '{name}': the classification extension is not served, ask for the tensor")
    if "shared_memory_region" in parameters:
        raise KServeError(501, f"output '{name}': shared memory is not served, ask for bytes")
    return WantedOutput(name, _flag(parameters, "binary_data", binary))


def _entries(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = found.get(key, [])
    if not isinstance(entries, list) or len(entries) > MAX_TENSORS or not all(isinstance(e, dict) for e in entries):
        raise KServeError(400, f"'{key}' must be a list of objects, {MAX_TENSORS} at most")
    return entries


def _parameters(found: dict[str, Any], whose: str) -> dict[str, Any]:
    parameters = found.get("parameters", {})
    if not isinstance(parameters, dict):
        raise KServeError(400, f"the parameters of {whose} must be an object")
    return parameters


def _flag(parameters: dict[str, Any], key: str, otherwise: bool) -> bool:
    value = parameters.get(key, otherwise)
    if not isinstance(value, bool):
        raise KServeError(400, f"the parameter '{key}' must be a boolean")
    return value
