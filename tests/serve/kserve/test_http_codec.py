"""Requests that the real tritonclient writes are read, and answers that we write are read by it. No server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_codec import encode, parse
from streamer.serve.kserve.messages import InferAnswer, InferRequest, SequenceFlags
from streamer.serve.kserve.tensors import DATATYPES, NamedTensor

DTYPES = sorted(DATATYPES.values())


def array_of(dtype: str, shape: tuple[int, ...] = (1, 2, 3)) -> np.ndarray[Any, np.dtype[Any]]:
    rng = np.random.default_rng(5)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith("float"):
        return rng.normal(size=shape).astype(dtype)
    kind = np.iinfo(dtype)
    return rng.integers(kind.min, kind.max, shape, dtype=dtype, endpoint=True)


def written(array: np.ndarray[Any, np.dtype[Any]], *, binary: bool = True, **options: Any) -> tuple[bytes, int | None]:
    """What tritonclient sends."""
    datatype = next(name for name, dtype in DATATYPES.items() if dtype == array.dtype.name)
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    body, length = triton.InferenceServerClient.generate_request_body([tensor], **options)
    return body, length


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_tensors_of_every_datatype_arrive_as_they_were(dtype: str, binary: bool) -> None:
    array = array_of(dtype)
    request = None
    if dtype == "float16" and not binary:
        with pytest.raises(KServeError, match="FP16 must be sent as bytes"):
            parse(*written(array, binary=binary))
        return
    request = parse(*written(array, binary=binary))
    assert request.inputs[0].array.dtype == array.dtype
    np.testing.assert_array_equal(request.inputs[0].array, array)
    assert request.binary  # a client that names no outputs wants them all as bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_the_client_reads_answers_of_every_datatype(dtype: str, binary: bool) -> None:
    array = array_of(dtype)
    if dtype == "float32":
        array[0, 0] = [np.nan, np.inf, -np.inf]
    answer = InferAnswer("m", "1", "r7", (NamedTensor("y", array), NamedTensor("z", array[:, :1])))
    body, length = encode(answer, InferRequest((), binary=binary))
    result = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    np.testing.assert_array_equal(result.as_numpy("z"), array[:, :1])
    assert result.get_response()["id"] == "r7"


def test_outputs_may_be_json_and_bytes_side_by_side() -> None:
    array = array_of("float32")
    outputs = [triton.InferRequestedOutput("y", binary_data=False), triton.InferRequestedOutput("z", binary_data=True)]
    request = parse(*written(array, outputs=outputs))
    assert [(o.name, o.binary) for o in request.outputs] == [("y", False), ("z", True)]
    answer = InferAnswer("m", "1", "", (NamedTensor("y", array), NamedTensor("z", array)))
    body, length = encode(answer, request)
    head = json.loads(body[:length])
    assert "data" in head["outputs"][0]
    assert head["outputs"][1]["parameters"] == {"binary_data_size": array.nbytes}
    result = triton.InferenceServerClient.parse_response_body(body, header_length=length)
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    np.testing.assert_array_equal(result.as_numpy("z"), array)


@pytest.mark.parametrize("id", [42, 2**64 - 1, "stream-7", "42"])
def test_sequences_have_integers_or_text_for_ids(id: int | str) -> None:
    body, length = written(array_of("float32"), sequence_id=id, sequence_start=True, timeout=250_000, request_id="a")
    request = parse(body, length)
    assert request.sequence == SequenceFlags(id, start=True)
    assert request.timeout == 0.25
    assert request.id == "a"


def test_the_id_zero_is_no_sequence() -> None:
    body = {"parameters": {"sequence_id": 0, "sequence_start": True}, "inputs": []}
    assert parse(json.dumps(body).encode(), None).sequence is None
    body["parameters"]["sequence_id"] = ""  # type: ignore[index]
    assert parse(json.dumps(body).encode(), None).sequence is None


def test_the_clients_own_parameters_pass() -> None:
    body, length = written(array_of("float32"), sequence_id=1, parameters={"sequence_position": 30, "mine": "x"})
    request = parse(body, length)
    assert request.sequence == SequenceFlags(1, position=30)


def request_with(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changes.pop("tensor", {})
    return json.dumps({"inputs": [tensor]} | changes).encode()


@pytest.mark.parametrize(
    ("body", "length", "message"),
    [
        (b"{", None, "failed to parse the request JSON"),
        (b"[]", None, "is no object"),
        (b"{}", 7, "Inference-Header-Content-Length is 7"),
        (b"[" * 100_000, None, "failed to parse"),
        (request_with(parameters={"triton_x": 1}), None, "reserved: 'triton_x'"),
        (request_with(parameters={"sequence_id": -1}), None, "unsigned integer of 64 bits or a string"),
        (request_with(parameters={"sequence_id": 2**64}), None, "unsigned integer of 64 bits or a string"),
        (request_with(parameters={"sequence_id": True}), None, "unsigned integer of 64 bits or a string"),
        (request_with(parameters={"sequence_id": "x" * 129}), None, "129 characters, 128 is the bound"),
        (request_with(parameters={"sequence_id": 1, "sequence_start": 1}), None, "'sequence_start' must be a boolean"),
        (request_with(parameters={"sequence_id": 1, "sequence_position": "7"}), None, "a number of rows"),
        (request_with(parameters={"timeout": -1}), None, "number of microseconds"),
        (request_with(parameters=[]), None, "must be an object"),
        (request_with(id=7), None, "id must be a string"),
        (request_with(inputs={}), None, "'inputs' must be a list"),
        (request_with(outputs=[{"parameters": {}}]), None, "output has no name"),
        (request_with(outputs=[{"name": "y", "parameters": {"classification": 3}}]), None, "not served"),
        (request_with(tensor={"name": 3}), None, "has no name"),
        (request_with(tensor={"shape": [1, 2.5]}), None, "no shape"),
        (request_with(tensor={"shape": [1, -2]}), None, "it is no shape"),
        (request_with(tensor={"shape": [1, 3]}), None, "2 numbers, and its shape [1, 3] has 3"),
        (request_with(tensor={"shape": [2**62, 2**62]}), None, "2 numbers, and its shape"),
        (request_with(tensor={"datatype": "BYTES"}), None, "no model here takes it"),
        (request_with(tensor={"datatype": "UINT8", "data": [1, 256]}), None, "uint8"),
        (request_with(tensor={"datatype": "INT32", "data": [1, 2.5]}), None, "int32"),
        (request_with(tensor={"data": ["a", "b"]}), None, "float32"),
        (request_with(tensor={"data": [[1], [2, 3]]}), None, "different shapes"),
        (request_with(tensor={"parameters": {"binary_data_size": 8}}), None, "0 bytes are left"),
        (request_with(tensor={"parameters": {"shared_memory_region": "r"}}), None, "shared memory"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, length: int | None, message: str) -> None:
    with pytest.raises(KServeError) as caught:
        parse(body, length)
    assert message in caught.value.message
    assert caught.value.status in (400, 501)


def test_bytes_are_neither_missing_nor_left_over() -> None:
    body, length = written(array_of("float32"))
    for changed in (body[:-1], body + b"x"):
        with pytest.raises(KServeError, match="bytes"):
            parse(changed, length)


@given(st.data())
def test_damaged_requests_are_refused_or_read_but_never_break_the_reader(data: st.DataObject) -> None:
    body, length = written(array_of("float32"), sequence_id=5, sequence_start=True)
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(bytes(damaged), length)
        status = 200
    except KServeError as error:
        status = error.status
    assert status in (200, 400, 501)
