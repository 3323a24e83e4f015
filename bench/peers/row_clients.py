"""Clients that send rows, in a separate process: ``python -m bench.peers.row_clients ROAD PORT STREAMS SECONDS``.

Each stream sends a row when the last one is answered. Prints ``begin`` and, after SECONDS, a line of JSON. A road is a
protocol, and a class here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import numpy as np
import websockets

from bench.peers.shapes import CHANNELS

MODEL = "plant"


class Http:
    """A persistent connection, one POST a row. Without a client library, which would cost more than the servers."""

    path = f"/v1/streams/{{key}}?model={MODEL}"

    async def open(self, port: int, key: str) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        path = self.path.format(key=key)
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    async def ask(self, row: np.ndarray) -> None:
        await self._post(json.dumps([row.tolist()]).encode())

    async def _post(self, body: bytes) -> None:
        self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(f"{head.decode()}{answer.decode()}")


class Plain(Http):
    path = "/streams/{key}"


class WebSocket:
    """Rows in binary frames, outputs in JSON."""

    async def open(self, port: int, key: str) -> None:
        uri = f"ws://127.0.0.1:{port}/v1/stream"
        self._socket = await websockets.connect(uri, compression=None, max_queue=None)
        await self._socket.send(json.dumps({"type": "start", "model": MODEL, "key": key}))
        await self._socket.recv()

    async def ask(self, row: np.ndarray) -> None:
        await self._socket.send(row.tobytes())
        while '"outputs"' not in (answer := str(await self._socket.recv())):
            if '"type":"error"' in answer:
                raise SystemExit(answer)


class KServe(Http):
    """A sequence over HTTP, tensors as bytes both ways, as Triton's clients send them."""

    async def open(self, port: int, key: str) -> None:
        await super().open(port, key)
        self._sequence = {"sequence_id": key, "sequence_start": True}

    async def ask(self, row: np.ndarray) -> None:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1, len(row)]}
        document = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
            "parameters": self._sequence,
        }
        text = json.dumps(document).encode()
        # all connections have the secret of one client, so that the sequences of the last turn start again
        more = f"streamer-client: bench\r\nInference-Header-Content-Length: {len(text)}"
        self._head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"
        await self._post(text + row.tobytes())
        self._sequence = {**self._sequence, "sequence_start": False}


class KServeGrpc:
    """A sequence over gRPC, with a connection for each, and the messages of Triton's client, without the client."""

    async def open(self, port: int, key: str) -> None:
        import grpc
        from tritonclient.grpc import service_pb2

        # a connection for each, as with clients on different machines
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
        self._call = self._channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelInferResponse.FromString,
        )
        self._request = service_pb2.ModelInferRequest(model_name=MODEL)
        self._request.inputs.add(name="x", datatype="FP32", shape=[1, 1, CHANNELS])
        self._request.parameters["sequence_id"].string_param = key
        self._request.parameters["sequence_start"].bool_param = True

    async def ask(self, row: np.ndarray) -> None:
        self._request.raw_input_contents[:] = [row.tobytes()]
        answer = await self._call(self._request, metadata=(("streamer-client", "bench"),))
        if len(answer.raw_output_contents) != 1:
            raise SystemExit(f"no output: {answer}")
        self._request.parameters["sequence_start"].bool_param = False


ROADS = {
    "websocket": WebSocket,
    "http": Http,
    "kserve": KServe,
    "kserve-grpc": KServeGrpc,
    "grpc-empty": KServeGrpc,
    "fastapi": Plain,
}


async def main(road: str, port: int, streams: int, seconds: float) -> None:
    rows = np.random.default_rng(0).normal(size=(64, CHANNELS)).astype("<f4")
    waits: list[float] = []

    async def stream(number: int) -> None:
        client = ROADS[road]()
        await client.open(port, f"bench-{number}")
        while True:
            begin = time.monotonic()
            await client.ask(rows[number % 64])
            waits.append(time.monotonic() - begin)

    tasks = [asyncio.create_task(stream(number)) for number in range(streams)]
    running = asyncio.gather(*tasks)
    await asyncio.wait([running], timeout=0.5 + streams / 100)
    if running.done():
        running.result()
    waits.clear()
    print("begin", flush=True)
    begin = time.monotonic()
    await asyncio.wait([running], timeout=seconds)
    if running.done():
        running.result()
    print(json.dumps({"seconds": time.monotonic() - begin, "waits": waits}), flush=True)
    os._exit(0)  # the streams are endless


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
