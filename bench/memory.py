"""Resident memory of the daemon for each stream: idle connections, then streams that have run for a while."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import websockets

from bench import setup
from bench.report import finish
from streamer.engine.model import Model


async def grow(served: setup.Served, rate: int, counts: list[int], seconds: float) -> list[tuple[int, int, int]]:
    """For each number of streams: (streams, resident bytes when idle, resident bytes after each has run ``seconds`` of
    sound)."""
    sockets = []
    found = [(0, served.resident_bytes(), served.resident_bytes())]
    data = setup.sound(rate, seconds).tobytes()
    for count in counts:
        while len(sockets) < count:
            socket = await websockets.connect(f"ws://127.0.0.1:{served.port}/v1/stream", compression=None)
            await socket.send(json.dumps({"type": "start", "sample_rate": rate}))
            await socket.recv()
            sockets.append(socket)
        idle = served.resident_bytes()
        for socket in sockets:
            await socket.send(data)
            await socket.send(json.dumps({"type": "marker", "id": "done"}))
        for socket in sockets:
            while json.loads(await socket.recv())["type"] != "marker":
                pass
        found.append((count, idle, served.resident_bytes()))
    for socket in sockets:
        await socket.close()
    return found


def main(argv: list[str]) -> None:
    parser = setup.parser("memory", __doc__)
    parser.add_argument("--streams", type=int, nargs="*", default=[64, 128, 256])
    parser.add_argument("--seconds", type=float, default=1.0, help="of sound for each stream and step")
    arguments = parser.parse_args(argv)
    with setup.model_path(arguments.model) as path:
        manifest = Model.load(path).manifest
        with setup.serving(path, STREAMER_IDLE_SECONDS="0") as served:
            whole = max(arguments.seconds // manifest.chunk_seconds, 1) * manifest.chunk_seconds
            rate = manifest.input.sample_rate or 16000
            found = asyncio.run(grow(served, rate, sorted(arguments.streams), whole))
    streams, idle, run = (np.array(column, float) for column in zip(*found, strict=True))
    slope = float(np.polyfit(streams[1:], run[1:], 1)[0]) if len(found) > 2 else (run[-1] - run[0]) / streams[-1]
    results: dict[str, Any] = {
        "model": manifest.name,
        "state_bytes_per_stream": manifest.state_bytes,
        "bytes_per_stream": slope,
        "base_bytes": run[0],
        "steps": [
            {"streams": int(n), "idle_bytes": i, "run_bytes": r} for n, i, r in zip(streams, idle, run, strict=True)
        ],
    }
    rows = [(f"{n:.0f}", f"{i / 2**20:.1f}", f"{r / 2**20:.1f}") for n, i, r in zip(streams, idle, run, strict=True)]
    rows.append(("each", "", f"{slope / 1024:.0f} KiB, {manifest.state_bytes / 1024:.0f} KiB of it state"))

    def plot(axes: Any) -> None:
        axes.plot(streams, idle / 2**20, "o-", label="idle")
        axes.plot(streams, run / 2**20, "o-", label="after running")
        axes.set_xlabel("streams")
        axes.set_ylabel("resident MiB")
        axes.set_ylim(bottom=0)
        axes.legend()

    columns = ("streams", "idle MiB", "after running MiB")
    finish("memory", results, columns=columns, rows=rows, plot=plot, as_json=arguments.json)
