"""Latency from the last sample of a chunk to its result: real-time streams through the WebSocket.

Clients and daemon are two processes on one machine. A client sends 20 ms of sound every 20 ms and a marker after each
chunk. The latency is the time from sending the marker to receiving it, so that chunks without results count, too. It
does not include the duration of the chunk.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import numpy as np
import websockets

from bench import setup
from bench.report import finish
from streamer.engine.model import Model

PIECE_SECONDS = 0.02


async def client(port: int, rate: int, chunk: int, data: bytes, seconds: float) -> list[float]:
    """For each chunk the seconds from sending its marker to receiving it."""
    piece = round(PIECE_SECONDS * rate)
    async with websockets.connect(f"ws://127.0.0.1:{port}/v1/stream", compression=None, max_queue=None) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate": rate}))
        asked: dict[str, float] = {}
        found: list[float] = []

        async def read() -> None:
            async for frame in socket:
                event = json.loads(frame)
                if event["type"] == "marker":
                    found.append(time.perf_counter() - asked.pop(event["id"]))

        reader = asyncio.create_task(read())
        await asyncio.sleep(random.random() * chunk / rate)  # streams do not start in step
        begin, sent, number = time.perf_counter(), 0, 0
        while time.perf_counter() - begin < seconds:
            upto = min(sent + piece, (sent // chunk + 1) * chunk)  # a message never crosses the end of a chunk
            await asyncio.sleep(max(0.0, begin + upto / rate - time.perf_counter()))
            at = 2 * sent % (len(data) // 2)
            await socket.send(data[at : at + 2 * (upto - sent)])
            sent = upto
            if sent % chunk == 0:
                asked[str(number)] = time.perf_counter()
                await socket.send(json.dumps({"type": "marker", "id": str(number)}))
                number += 1
        await socket.send(json.dumps({"type": "end"}))
        await asyncio.wait_for(reader, 30)
        return found


async def measure(port: int, model: Model, streams: int, seconds: float) -> list[float]:
    rate = model.manifest.input.sample_rate or 16000
    sounds = [setup.sound(rate, 20, seed).tobytes() for seed in range(8)]
    results = await asyncio.gather(
        *(client(port, rate, model.manifest.chunk, sounds[i % 8], seconds) for i in range(streams))
    )
    return [one for result in results for one in result]


def main(argv: list[str]) -> None:
    parser = setup.parser("latency", __doc__)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each number of streams")
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {}
    sorted_times: dict[int, list[float]] = {}
    with setup.model_path(arguments.model) as path:
        model = Model.load(path)
        with setup.serving(path) as served:
            for streams in arguments.streams:
                cpu = served.cpu_seconds()
                begin = time.perf_counter()
                times = asyncio.run(measure(served.port, model, streams, arguments.seconds))
                used = (served.cpu_seconds() - cpu) / (time.perf_counter() - begin)
                p50, p95, p99 = np.percentile(times, [50, 95, 99])
                sorted_times[streams] = sorted(times)
                results[str(streams)] = {
                    "chunks": len(times),
                    "p50_ms": 1e3 * p50,
                    "p95_ms": 1e3 * p95,
                    "p99_ms": 1e3 * p99,
                    "max_ms": 1e3 * max(times),
                    "daemon_cpus": used,
                }
    rows = [
        (n, r["chunks"], *(f"{r[k]:.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "max_ms")), f"{r['daemon_cpus']:.2f}")
        for n, r in results.items()
    ]

    def plot(axes: Any) -> None:
        for streams, times in sorted_times.items():
            axes.plot(1e3 * np.array(times), np.linspace(0, 1, len(times)), label=f"{streams} streams")
        axes.set_xscale("log")
        axes.set_xlabel("last sample of a chunk to its result, ms")
        axes.set_ylabel("share of chunks")
        axes.legend()

    found = {"model": model.manifest.name, "chunk_seconds": model.manifest.chunk_seconds, "streams": results}
    columns = ("streams", "chunks", "p50 ms", "p95 ms", "p99 ms", "max ms", "daemon CPUs")
    finish("latency", found, columns=columns, rows=rows, plot=plot, as_json=arguments.json)
