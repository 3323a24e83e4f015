"""tritonclient over HTTP and over gRPC, each with a connection of its own, asked in the same words."""

from __future__ import annotations

import socket
from typing import Any, Protocol

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

__all__ = ["WIRES", "GrpcWire", "HttpWire", "Wire", "free_port"]

Array = NDArray[Any]


class Wire(Protocol):
    client: Any

    def infer(self, model: str, given: Array | dict[str, Array], **options: Any) -> Any: ...
    def position(self, result: Any) -> int: ...
    def close(self) -> None: ...


class HttpWire:
    unavailable, invalid, conflict, internal = "503", "400", "409", "500"

    def __init__(self, daemon: Any) -> None:
        self.client = http_client.InferenceServerClient(f"127.0.0.1:{daemon.port}", network_timeout=120.0)

    def infer(self, model: str, given: Array | dict[str, Array], **options: Any) -> Any:
        return self.client.infer(model, tensors(http_client, given), **options)

    def position(self, result: Any) -> int:
        found: int = result.get_response()["parameters"]["sequence_position"]
        return found

    def close(self) -> None:
        self.client.close()


class GrpcWire:
    unavailable, invalid = "StatusCode.UNAVAILABLE", "StatusCode.INVALID_ARGUMENT"
    conflict, internal = "StatusCode.FAILED_PRECONDITION", "StatusCode.INTERNAL"

    def __init__(self, daemon: Any) -> None:
        # else all clients of a process share one connection
        own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self.client = grpc_client.InferenceServerClient(f"127.0.0.1:{daemon.grpc_port}", channel_args=own)

    def infer(self, model: str, given: Array | dict[str, Array], **options: Any) -> Any:
        return self.client.infer(model, tensors(grpc_client, given), **options)

    def position(self, result: Any) -> int:
        found: int = result.get_response().parameters["sequence_position"].int64_param
        return found

    def close(self) -> None:
        self.client.close()


WIRES = {"http": HttpWire, "grpc": GrpcWire}


def tensors(module: Any, given: Array | dict[str, Array], **options: Any) -> list[Any]:
    """[T, ...] of the input ``x``, or arrays by name, with a batch axis put before them."""
    found = []
    for name, array in (given if isinstance(given, dict) else {"x": given}).items():
        tensor = module.InferInput(name, [1, *array.shape], np_to_triton_dtype(array.dtype))
        found.append(tensor.set_data_from_numpy(np.ascontiguousarray(array[None]), **options))
    return found


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
