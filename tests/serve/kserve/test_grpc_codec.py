"""The same over gRPC: the bytes are tritonclient's own messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from streamer.contract.manifest import Manifest
from streamer.engine.model import Model
from streamer.serve.kserve import describe
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.grpc_codec import encode, fill, parse
from streamer.serve.kserve.grpc_messages import MESSAGES
from streamer.serve.kserve.messages import InferAnswer, SequenceFlags
from streamer.serve.kserve.tensors import DATATYPES, NamedTensor
from tests.serve.kserve.test_http_codec import DTYPES, array_of


def written(array: np.ndarray[Any, np.dtype[Any]], **options: Any) -> Any:
    """What tritonclient sends, as its own message."""
    datatype = next(name for name, dtype in DATATYPES.items() if dtype == array.dtype.name)
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    defaults: dict[str, Any] = {
        "model_name": "m",
        "model_version": "1",
        "request_id": "r1",
        "outputs": None,
        "sequence_id": 0,
        "sequence_start": False,
        "sequence_end": False,
        "priority": 0,
        "timeout": None,
        "parameters": None,
    }
    return _get_inference_request(inputs=[tensor], **(defaults | options))


def ours(message: Any) -> Any:
    return MESSAGES["ModelInferRequest"].FromString(message.SerializeToString())


@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_tensors_of_every_datatype_arrive_as_they_were(dtype: str) -> None:
    array = array_of(dtype)
    model, version, request = parse(ours(written(array)))
    assert (model, version, request.id) == ("m", "1", "r1")
    assert request.inputs[0].array.dtype == array.dtype
    np.testing.assert_array_equal(request.inputs[0].array, array)


@pytest.mark.parametrize(("datatype", "field"), [
    ("BOOL", "bool_contents"), ("INT8", "int_contents"), ("INT16", "int_contents"), ("INT32", "int_contents"),
    ("INT64", "int64_contents"), ("UINT8", "uint_contents"), ("FP32", "fp32_contents"), ("FP64", "fp64_contents"),
])  # fmt: skip
def test_contents_are_read_where_there_are_no_raw_bytes(datatype: str, field: str) -> None:
    array = array_of(DATATYPES[datatype])
    message = service_pb2.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=array.shape)
    getattr(tensor.contents, field).extend(array.reshape(-1).tolist())
    _, _, request = parse(ours(message))
    np.testing.assert_array_equal(request.inputs[0].array, array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_client_reads_answers_of_every_datatype(dtype: str) -> None:
    array = array_of(dtype)
    tensors = (NamedTensor("y", array), NamedTensor("z", array[:, :1]))
    message = encode(InferAnswer("m", "1", "r7", tensors, {"sequence_position": 12}), final=True)
    theirs = service_pb2.ModelInferResponse.FromString(message.SerializeToString())
    result = triton.InferResult(theirs)
    np.testing.assert_array_equal(result.as_numpy("y"), array)
    np.testing.assert_array_equal(result.as_numpy("z"), array[:, :1])
    assert theirs.id == "r7"
    assert theirs.parameters["sequence_position"].int64_param == 12
    assert theirs.parameters["triton_final_response"].bool_param is True


@pytest.mark.parametrize("id", [42, 2**63 - 1, "stream-7"])
def test_sequences_have_integers_or_text_for_ids(id: int | str) -> None:
    message = written(array_of("float32"), sequence_id=id, sequence_end=True, timeout=1000, priority=3)
    _, _, request = parse(ours(message))
    assert request.sequence == SequenceFlags(id, end=True)
    assert request.timeout == 0.001


def test_a_negative_id_is_the_unsigned_one_of_the_same_bits() -> None:
    _, _, request = parse(ours(written(array_of("float32"), sequence_id=-1)))
    assert request.sequence == SequenceFlags(2**64 - 1)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("sequence_id", "uint64_param", 3),
        ("sequence_start", "int64_param", 1),
        ("sequence_end", "string_param", "true"),
        ("timeout", "uint64_param", 3),
    ],
)
def test_parameters_have_the_kinds_that_triton_insists_on(name: str, field: str, value: Any) -> None:
    message = written(array_of("float32"), sequence_id=3)
    message.parameters[name].Clear()
    setattr(message.parameters[name], field, value)
    with pytest.raises(KServeError, match=f"invalid value type for '{name}' parameter, expected"):
        parse(ours(message))


def test_what_is_wrong_is_said() -> None:
    array = array_of("float32")
    short = written(array)
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    both = written(array)
    both.inputs[0].contents.fp32_contents.extend([1.0])
    more = written(array)
    more.raw_input_contents.append(b"")
    half = service_pb2.ModelInferRequest(model_name="m")
    half.inputs.add(name="x", datatype="FP16", shape=[1, 1])
    shared = written(array)
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    wrong = [(short, "23 bytes"), (both, "beside"), (more, "2 raw_input_contents"), (half, "raw"), (shared, "memory")]
    for message, said in wrong:
        with pytest.raises(KServeError, match=said):
            parse(ours(message))
    with pytest.raises(KServeError, match=r"no UTF-8"):
        parse(MESSAGES["ModelInferRequest"](model_name=b"\xff"))


def test_metadata_and_configuration_are_what_the_client_expects(toy: Any) -> None:
    manifest: Manifest = Model.load(toy).manifest
    told = fill(MESSAGES["ModelMetadataResponse"](), describe.metadata(manifest))
    theirs = service_pb2.ModelMetadataResponse.FromString(told.SerializeToString())
    assert [(t.name, t.datatype, list(t.shape)) for t in theirs.inputs] == [("pcm", "INT16", [-1, 320])]
    assert [(t.name, t.datatype, list(t.shape)) for t in theirs.outputs] == [("log_probs", "FP32", [-1, 4, 3])]
    document = {"config": describe.config(manifest, capacity=7, idle_seconds=2.5)}
    config = service_pb2.ModelConfigResponse.FromString(
        fill(MESSAGES["ModelConfigResponse"](), document).SerializeToString()
    ).config
    assert config.sequence_batching.max_sequence_idle_microseconds == 2_500_000
    assert config.sequence_batching.oldest.max_candidate_sequences == 7
    state = config.sequence_batching.state[0]
    assert (state.input_name, state.output_name) == ("overlap", "overlap.next")
    assert config.input[0].data_type == 7  # TYPE_INT16
    assert config.max_batch_size == 1


@given(st.data())
def test_damaged_messages_are_refused_or_read_but_never_break_the_reader(data: st.DataObject) -> None:
    from google.protobuf.message import DecodeError

    body = bytearray(written(array_of("float32"), sequence_id=5, sequence_start=True).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parse(MESSAGES["ModelInferRequest"].FromString(bytes(body)))
        status = 200
    except DecodeError:
        status = 400  # gRPC answers that itself
    except KServeError as error:
        status = error.status
    assert status in (200, 400, 501)
