"""What gRPC may hold before anybody here sees it: calls, connections and the length of a message are bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.daemon.running import Running
from tests.serve.kserve.clients import GrpcWire
from tests.serve.kserve.conftest import serving
from tests.serve.kserve.plant import WIDTH, rows

CALLS = 3
STREAM, READY = "/inference.GRPCInferenceService/ModelStreamInfer", "/inference.GRPCInferenceService/ServerReady"


@pytest.fixture(scope="module")
def bound(models: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bounds = {"kserve_max_calls": CALLS, "kserve_max_message_bytes": 2**18, "max_connections": 4}
    with serving(tmp_path_factory.mktemp("bound"), models[0], **bounds) as running:
        yield running


def channel(running: Any) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}", [("grpc.use_local_subchannel_pool", 1)])


def lasting(found: grpc.Channel, over: threading.Event) -> Any:
    """A stream that sends nothing."""

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    return found.stream_stream(STREAM)(nothing())


def calls(running: Running, count: int) -> None:
    while running.metrics()["streamer_grpc_calls"] != count:
        pass


def test_no_more_calls_at_a_time_than_are_allowed(bound: Running) -> None:
    over = threading.Event()
    with channel(bound) as one, channel(bound) as other:
        streams = [lasting(one, over) for _ in range(CALLS)]
        calls(bound, CALLS)
        with pytest.raises(grpc.RpcError) as refused:
            other.unary_unary(READY)(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as waiting:  # in the client
            one.unary_unary(READY)(b"", timeout=0.5)
        assert waiting.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        over.set()
        for stream in streams:
            assert list(stream) == []
        calls(bound, 0)
        assert other.unary_unary(READY)(b"", timeout=60)


def test_a_longer_message_is_not_read(bound: Running) -> None:
    wire = GrpcWire(bound)
    with pytest.raises(Exception, match="RESOURCE_EXHAUSTED"):
        wire.infer("plant", np.zeros((2**18 // WIDTH // 4 + 64, WIDTH), np.float32))
    assert wire.infer("plant", rows(1, 4)).as_numpy("y").shape[1] == 4
    wire.close()


def test_no_more_connections_than_are_allowed(bound: Running) -> None:
    open_ones = [channel(bound) for _ in range(4)]
    for each in open_ones:
        assert each.unary_unary(READY)(b"", timeout=60)
    with channel(bound) as more:
        with pytest.raises(grpc.RpcError) as refused:
            more.unary_unary(READY)(b"", timeout=2)
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    open_ones.pop().close()
    deadline = time.monotonic() + 60
    with channel(bound) as more:
        while True:
            try:
                assert more.unary_unary(READY)(b"", timeout=2)
                break
            except grpc.RpcError:
                assert time.monotonic() < deadline
    for each in open_ones:
        each.close()
