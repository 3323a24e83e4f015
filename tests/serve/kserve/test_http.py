"""What HTTP has of its own: JSON, raw bodies, compression, headers, and the documents."""

from __future__ import annotations

import gzip
import http.client
import json
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.daemon.running import Running
from tests.serve.kserve.clients import HttpWire, tensors
from tests.serve.kserve.plant import CHUNK, WIDTH, rows, truth

INFER = "/v2/models/plant/infer"


def post(running: Running, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        connection.request("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def asked(given: Any, **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(given), WIDTH], "data": given.tolist()}
    return json.dumps({"inputs": [tensor]} | more).encode()


@pytest.fixture
def wire(served: Running) -> Any:
    found = HttpWire(served)
    yield found
    found.close()


@pytest.mark.parametrize("into", [True, False])
@pytest.mark.parametrize("back", [True, False])
def test_tensors_as_bytes_and_as_json(wire: HttpWire, into: bool, back: bool) -> None:
    given = rows(1, 6)
    outputs = [triton.InferRequestedOutput("y", binary_data=back), triton.InferRequestedOutput("low", binary_data=back)]
    result = wire.client.infer("plant", tensors(triton, given, binary_data=into), outputs=outputs, request_id="r1")
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))
    np.testing.assert_array_equal(result.as_numpy("low")[0], truth(given).mean(axis=1) < 0)
    assert result.get_response()["id"] == "r1"


@pytest.mark.parametrize("into", ["gzip", "deflate"])
def test_compressed_requests(wire: HttpWire, into: str) -> None:
    given = rows(1, 600)
    result = wire.client.infer(
        "plant",
        tensors(triton, given),
        request_compression_algorithm=into,
        response_compression_algorithm="gzip",
    )
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))


def test_only_wanted_outputs_come_in_the_order_of_the_request(wire: HttpWire) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("low", "y")]
    result = wire.client.infer("plant", tensors(triton, rows(1, 2)), outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["low", "y"]
    result = wire.client.infer("plant", tensors(triton, rows(1, 2)), outputs=outputs[:1])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["low"]
    with pytest.raises(InferenceServerException, match="unexpected inference output 'z': it has y, low"):
        wire.client.infer("plant", tensors(triton, rows(1, 2)), outputs=[triton.InferRequestedOutput("z")])


def test_many_requests_of_one_client_at_once(wire: HttpWire, served: Running) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{served.port}", concurrency=8)
    given = [rows(seed, 4) for seed in range(40)]
    waiting = [client.async_infer("plant", tensors(triton, each)) for each in given]
    for each, answer in zip(given, waiting, strict=True):
        np.testing.assert_array_equal(answer.get_result().as_numpy("y")[0], truth(each))
    client.close()


def test_plain_json_without_any_client(served: Running) -> None:
    status, headers, body = post(served, INFER, asked(rows(1, 4)))
    assert (status, headers["content-type"]) == (200, "application/json")
    found = json.loads(body)
    assert (found["model_name"], found["model_version"]) == ("plant", "1")
    assert [(o["name"], o["datatype"], o["shape"]) for o in found["outputs"]] == [
        ("y", "FP32", [1, 4, WIDTH]),
        ("low", "BOOL", [1, 4]),
    ]
    np.testing.assert_array_equal(np.float32(found["outputs"][0]["data"]).reshape(4, WIDTH), truth(rows(1, 4)))
    zipped = gzip.compress(asked(rows(1, 4)))
    assert post(served, INFER, zipped, Content_Encoding="gzip")[2] == body


def test_a_body_of_bytes_alone(served: Running) -> None:
    given = rows(1, 4)
    status, headers, body = post(served, INFER, given.tobytes(), Inference_Header_Content_Length="0")
    assert status == 200
    result = triton.InferenceServerClient.parse_response_body(
        body, header_length=int(headers["inference-header-content-length"])
    )
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))
    status, _, body = post(served, INFER, given.tobytes()[:-1], Inference_Header_Content_Length="0")
    assert (status, "bytes" in json.loads(body)["error"]) == (400, True)
    status, _, body = post(served, "/v2/models/several/infer", b"1234", Inference_Header_Content_Length="0")
    assert (status, "it has 2 inputs" in json.loads(body)["error"]) == (400, True)


@pytest.mark.long
def test_long_requests_are_taken_and_too_long_ones_told(tight: Running) -> None:
    given = rows(1, 30_000)
    status, headers, body = post(tight, INFER, given.tobytes(), Inference_Header_Content_Length="0")
    assert status == 200
    result = triton.InferenceServerClient.parse_response_body(
        body, header_length=int(headers["inference-header-content-length"])
    )
    np.testing.assert_array_equal(result.as_numpy("y")[0], truth(given))
    status, _, body = post(tight, INFER, bytes(400_001), Inference_Header_Content_Length="0")
    assert (status, "the limit is 400000" in json.loads(body)["error"]) == (413, True)


def test_a_full_daemon_says_when_to_try_again(tight: Running) -> None:
    wire = HttpWire(tight)
    wire.infer("plant", rows(1, 2), sequence_id=1, sequence_start=True)
    status, headers, body = post(tight, INFER, asked(rows(1, 2)))
    assert (status, headers["retry-after"]) == (503, "5")
    assert "all 1 slots of plant are taken" in json.loads(body)["error"]
    wire.infer("plant", rows(1, 2), sequence_id=1, sequence_end=True)
    wire.close()


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        (b"{", {}, "failed to parse the request JSON"),
        (b"{}", {}, "input 'x' is missing"),
        (b"{}", {"Inference_Header_Content_Length": "many"}, "a number of bytes"),
        (b"{}", {"Content_Encoding": "gzip"}, "the body is no gzip"),
    ],
)
def test_what_is_wrong_is_said(served: Running, body: bytes, headers: dict[str, str], message: str) -> None:
    status, _, answer = post(served, INFER, body, **headers)
    assert (status, message in json.loads(answer)["error"]) == (400, True)


# -- documents --------------------------------------------------------------------------------------------------------


def test_what_is_served(wire: HttpWire) -> None:
    client = wire.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("plant")
    assert client.is_model_ready("plant", "1")
    assert not client.is_model_ready("plant", "2")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["name"] == "streamer"
    assert "sequence(string_id)" in client.get_server_metadata()["extensions"]
    assert {(m["name"], m["state"]) for m in client.get_model_repository_index()} == {
        ("plant", "READY"),
        ("several", "READY"),
        ("toy", "READY"),
    }
    metadata = client.get_model_metadata("plant")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, CHUNK, WIDTH]}]
    assert metadata["outputs"][1] == {"name": "low", "datatype": "BOOL", "shape": [-1, CHUNK]}
    assert metadata["versions"] == ["1"]
    config = client.get_model_config("several")
    assert [i["name"] for i in config["input"]] == ["x", "gate", "speaker", "language"]
    assert [i.get("optional", False) for i in config["input"]] == [False, False, True, True]
    assert config["sequence_batching"]["max_sequence_idle_microseconds"] == 600_000_000


def test_statistics_are_counted(wire: HttpWire) -> None:
    def told() -> Any:
        (found,) = wire.client.get_inference_statistics("plant")["model_stats"]
        return found

    before = told()
    for at in range(5):
        wire.infer("plant", rows(1, 4), sequence_id="counted", sequence_start=at == 0)
    with pytest.raises(InferenceServerException):
        wire.infer("plant", rows(1, 3))
    after = told()
    assert (after["name"], after["version"]) == ("plant", "1")
    assert after["inference_count"] - before["inference_count"] == 10
    assert 5 <= after["execution_count"] - before["execution_count"] <= 10
    stats = before["inference_stats"], after["inference_stats"]
    assert [stats[1][kind]["count"] - stats[0][kind]["count"] for kind in ("success", "fail")] == [5, 1]
    assert stats[1]["success"]["ns"] - stats[0]["success"]["ns"] > 0
    assert stats[1]["compute_infer"]["ns"] - stats[0]["compute_infer"]["ns"] > 0
    assert after["last_inference"] >= before["last_inference"]
    everything = wire.client.get_inference_statistics()["model_stats"]
    assert {found["name"] for found in everything} == {"plant", "several", "toy"}


def test_extensions_that_are_not_there_say_so(wire: HttpWire) -> None:
    for ask in (
        lambda: wire.client.load_model("plant"),
        wire.client.get_system_shared_memory_status,
        wire.client.get_trace_settings,
        wire.client.get_log_settings,
    ):
        with pytest.raises(InferenceServerException, match="is not served here: the extensions are sequence") as caught:
            ask()
        assert caught.value.status() == "501"
