"""The cost of grpc.aio alone: every ``ModelInfer`` gets the same answer; nothing is parsed or run.

``python -m bench.peers.plain_grpc PORT``. On uvloop, like the daemon.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop

from bench.peers.shapes import CHANNELS


async def main(port: str) -> None:
    from tritonclient.grpc import service_pb2

    answer = service_pb2.ModelInferResponse(raw_output_contents=[bytes(4 * CHANNELS)]).SerializeToString()

    async def infer(request: bytes, context: Any) -> bytes:
        return bytes(answer)

    server = grpc.aio.server()
    methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
