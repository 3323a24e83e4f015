"""What gRPC has of its own: streams, status codes, its messages; and the asyncio client."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.daemon.running import Running, daemon
from tests.serve.kserve.clients import GrpcWire, tensors
from tests.serve.kserve.plant import CHUNK, TRAP, WIDTH, rows, truth


@pytest.fixture
def wire(served: Running) -> Iterator[GrpcWire]:
    found = GrpcWire(served)
    yield found
    found.close()


class StreamingClient:
    """One ``ModelStreamInfer``; answers in the order in which they came."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: self.answers.put((result, error)))

    def send(self, given: Any, **options: Any) -> None:
        self.client.async_stream_infer("plant", tensors(triton, given), **options)

    def result(self) -> Any:
        result, error = self.answers.get(timeout=60)
        if error is not None:
            raise error
        return result


def test_a_stream_carries_many_sequences_and_keeps_their_order(wire: GrpcWire) -> None:
    stream = StreamingClient(wire.client)
    given = {id: rows(seed, 100) for seed, id in enumerate([1, 2, "three", "four"])}
    for at in range(0, 100, 2):
        for id, whole in given.items():
            flags = {"sequence_start": at == 0, "sequence_end": at == 98}
            stream.send(whole[at : at + 2], sequence_id=id, request_id=f"{id}/{at}", **flags)
    for at in range(0, 100, 2):
        for id, whole in given.items():
            result = stream.result()
            assert result.get_response().id == f"{id}/{at}"
            np.testing.assert_array_equal(result.as_numpy("y")[0], truth(whole)[at : at + 2])
    wire.client.stop_stream()


def test_a_failing_request_is_told_and_the_stream_goes_on(wire: GrpcWire) -> None:
    stream, given = StreamingClient(wire.client), rows(1, 4)
    stream.send(given[:2], sequence_id=1, sequence_start=True)
    stream.send(given[:3], sequence_id=1)
    stream.send(given[:2], sequence_id=2)
    stream.send(np.full((2, WIDTH), TRAP, np.float32))
    stream.send(given[2:], sequence_id=1)
    assert stream.result().as_numpy("y").shape == (1, 2, 3)
    for message in ("a multiple of 2 rows", "must specify the START flag", "the model failed"):
        with pytest.raises(InferenceServerException, match=message):
            stream.result()
    np.testing.assert_array_equal(stream.result().as_numpy("y")[0], truth(given)[2:])
    wire.client.stop_stream()


def test_what_a_stream_started_is_its_own_as_long_as_it_lasts(wire: GrpcWire, served: Running) -> None:
    mine, given = StreamingClient(wire.client), rows(1, 6)
    mine.send(given[:2], sequence_id=77, sequence_start=True)
    mine.result()
    for other in (GrpcWire(served), wire):  # another connection; the same one, but not the stream
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            other.infer("plant", given[2:4], sequence_id=77)
    wire.client.stop_stream()
    result = GrpcWire(served).infer("plant", given[2:4], sequence_id=77)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given)[2:4])


def test_long_numbers_that_are_no_bytes_keep_their_place(served: Running) -> None:
    """They are read in a thread; short ones behind them must not overtake."""
    long, short = rows(1, 4000), rows(2, 2)
    messages = []
    for given, start in ((long, True), (short, False)):
        message = service_pb2.ModelInferRequest(model_name="plant")
        tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, *given.shape])
        tensor.contents.fp32_contents.extend(given.reshape(-1).tolist())
        message.parameters["sequence_id"].int64_param = 99
        message.parameters["sequence_start"].bool_param = start
        messages.append(message)
    with grpc.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel:  # type: ignore[attr-defined]
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter(messages)))
    found = [triton.InferResult(answer.infer_response).as_numpy("y") for answer in answers]
    np.testing.assert_array_equal(np.concatenate(found, axis=1)[0], truth(np.concatenate([long, short])))


def test_what_lost_its_connection_goes_on_in_order_however_far_the_client_sends_ahead(
    wire: GrpcWire, served: Running
) -> None:
    given, first = rows(1, 82), GrpcWire(served)
    first.infer("plant", given[:2], sequence_id="ahead", sequence_start=True)
    first.close()
    stream = StreamingClient(wire.client)
    for at in range(2, 82, 2):
        stream.send(given[at : at + 2], sequence_id="ahead")
    found = [stream.result().as_numpy("y") for _ in range(40)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1)[0], truth(given)[2:])
    wire.client.stop_stream()


def test_the_last_answer_is_marked_where_that_is_asked_for(wire: GrpcWire) -> None:
    stream = StreamingClient(wire.client)
    stream.send(rows(1, 2), enable_empty_final_response=True)
    assert stream.result().get_response().parameters["triton_final_response"].bool_param is True
    stream.send(rows(1, 2))
    assert "triton_final_response" not in stream.result().get_response().parameters
    wire.client.stop_stream()


def test_the_messages_of_a_stream_are_bounded_too(small: Running) -> None:
    wire = GrpcWire(small)
    stream, given = StreamingClient(wire.client), rows(1, 100_000)
    for message in (given, given[:40_001], given[:40_001], given, given[:4]):
        stream.send(message)
    for message in ("max_request_memory", "it expects", "it expects", "max_request_memory"):
        with pytest.raises(InferenceServerException, match=message):
            stream.result()
    np.testing.assert_array_equal(stream.result().as_numpy("y")[0], truth(given[:4]))
    wire.client.stop_stream()
    while small.metrics()["streamer_request_bytes"]:  # given back just behind the answer
        pass
    wire.close()


def test_a_client_that_sends_far_ahead_waits(tight: Running) -> None:
    wire = GrpcWire(tight)
    stream, given = StreamingClient(wire.client), rows(1, 1000)
    for at in range(0, 1000, 2):
        stream.send(given[at : at + 2], sequence_id=1, sequence_start=at == 0, sequence_end=at == 998)
    found = [stream.result().as_numpy("y") for _ in range(500)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1)[0], truth(given))
    wire.close()


def test_a_broken_stream_leaves_the_others_alone(wire: GrpcWire, served: Running) -> None:
    other, given = GrpcWire(served), rows(1, 4)
    stream = StreamingClient(other.client)
    for _ in range(200):
        stream.send(given, sequence_id=1, sequence_start=True)
    other.client.stop_stream(cancel_requests=True)
    other.close()
    np.testing.assert_array_equal(wire.infer("plant", given).as_numpy("y")[0], truth(given))


def test_the_asyncio_client(served: Running) -> None:
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{served.grpc_port}") as client:  # type: ignore[attr-defined]
            given = [rows(seed, 4) for seed in range(20)]
            answers = await asyncio.gather(*(client.infer("plant", tensors(triton, each)) for each in given))
            for each, answer in zip(given, answers, strict=True):
                np.testing.assert_array_equal(answer.as_numpy("y")[0], truth(each))

            async def requests() -> Any:
                for at in (0, 2):
                    yield {
                        "model_name": "plant",
                        "inputs": tensors(triton, given[0][at : at + 2]),
                        "sequence_id": 1,
                        "sequence_start": at == 0,
                    }

            found = [(result, error) async for result, error in client.stream_infer(requests())]
            assert [error for _, error in found] == [None, None]
            whole = np.concatenate([result.as_numpy("y") for result, _ in found], axis=1)[0]
            np.testing.assert_array_equal(whole, truth(given[0]))

    asyncio.run(talk())


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_messages(wire: GrpcWire, compression: str) -> None:
    given = rows(1, 400)
    result = wire.client.infer("plant", tensors(triton, given), compression_algorithm=compression)
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))


# -- documents --------------------------------------------------------------------------------------------------------


def test_what_is_served(wire: GrpcWire) -> None:
    client = wire.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("plant")
    assert not client.is_model_ready("plant", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata().name == "streamer"
    assert "sequence" in client.get_server_metadata().extensions
    assert {m.name for m in client.get_model_repository_index().models} == {"plant", "several", "toy"}
    (x,) = client.get_model_metadata("plant").inputs
    assert (x.name, x.datatype, list(x.shape)) == ("x", "FP32", [-1, CHUNK, WIDTH])
    config = client.get_model_config("plant").config
    assert config.max_batch_size == 1
    assert [s.input_name for s in config.sequence_batching.state] == ["total"]
    assert client.get_model_config("plant", as_json=True)["config"]["input"][0]["data_type"] == "TYPE_FP32"
    (found,) = client.get_inference_statistics("plant").model_stats
    assert found.name == "plant"
    assert found.inference_stats.success.count > 0


def test_extensions_that_are_not_there_say_so(wire: GrpcWire) -> None:
    for ask in (
        lambda: wire.client.load_model("plant"),
        wire.client.get_cuda_shared_memory_status,
        wire.client.get_log_settings,
    ):
        with pytest.raises(InferenceServerException, match="the extensions are sequence") as caught:
            ask()
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_when_to_try_again_is_told(tight: Running) -> None:
    wire = GrpcWire(tight)
    wire.infer("plant", rows(1, 2), sequence_id=1, sequence_start=True)
    channel = grpc.insecure_channel(f"127.0.0.1:{tight.grpc_port}")  # type: ignore[attr-defined]
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    request = triton._utils._get_inference_request(
        "plant", tensors(triton, rows(1, 2)), "", "", None, 0, False, False, 0, None, None
    )
    with pytest.raises(grpc.RpcError, match="all 1 slots") as failure:
        call(request.SerializeToString())
    assert failure.value.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(failure.value.trailing_metadata())["retry-after"] == "5"
    channel.close()
    wire.infer("plant", rows(1, 2), sequence_id=1, sequence_end=True)
    wire.close()


def test_a_taken_port_is_told(models: tuple[Path, ...], tmp_path: Path, served: Running) -> None:
    port = served.grpc_port  # type: ignore[attr-defined]
    with daemon(tmp_path / "second", models[0], wait=False, kserve_grpc_port=port) as running:
        assert running.process.wait(60) == 69
        assert f"can't listen on 127.0.0.1:{port} for gRPC" in running.errors.read_text()
