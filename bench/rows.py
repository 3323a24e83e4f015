"""Rows a second by each of the daemon's protocols, compared with FastAPI and one ``session.run`` a request.

The model has two LSTM layers of 128 over 8 channels (``bench/peers/plant.py``) and is adopted for the daemon. Every
stream sends a row when the last one is answered. Clients are a separate process, protocols take turns, and CPU time is
that of the server's process. ``grpc-empty`` is a server of grpc.aio that answers the gRPC clients at once and runs
nothing: the cost of the clients and of grpc.aio.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import setup
from bench.report import finish
from bench.servers import ComparedServer, cpu_seconds, free_port, process

ROADS = ("websocket", "http", "kserve", "kserve-grpc", "grpc-empty", "fastapi")
COLUMNS = ("streams", "road", "rows a second", "to FastAPI", "CPU ms a row", "p50 ms", "p95 ms")


def turn(road: str, peer: ComparedServer, streams: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.peers.row_clients", road, str(peer.port), str(streams), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        if load.stdout.readline().strip() != "begin":
            raise SystemExit(f"the clients of {road} failed")
        cpu = cpu_seconds(peer.pid)
        found: dict[str, Any] = json.loads(load.stdout.readline())
        found["cpu"] = cpu_seconds(peer.pid) - cpu
        load.wait(60)
    return found


def summary(turns: Sequence[dict[str, Any]]) -> dict[str, float]:
    waits = 1e3 * np.concatenate([one["waits"] for one in turns])
    if not len(waits):
        raise SystemExit("no row was answered")
    return {
        "rows_per_second": len(waits) / sum(one["seconds"] for one in turns),
        "cpu_ms_per_row": 1e3 * sum(one["cpu"] for one in turns) / len(waits),
        "p50_ms": float(np.percentile(waits, 50)),
        "p95_ms": float(np.percentile(waits, 95)),
    }


def main(argv: list[str]) -> None:
    parser = setup.parser("rows", __doc__)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args(argv)
    from bench.peers import plant
    from export.adopt.build import adopt

    turns: dict[tuple[int, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        model = plant.write(Path(folder) / "plant.onnx")
        adopted = Path(folder) / "plant.streamer.onnx"
        adopt(model, adopted, long_chunks=50)
        grpc_port = free_port()
        served = stack.enter_context(setup.serving(adopted, STREAMER_KSERVE_GRPC_PORT=str(grpc_port)))
        ours = ComparedServer("streamer", served.port, served.process.pid)
        peers = dict.fromkeys(ROADS, ours) | {"kserve-grpc": ComparedServer("streamer", grpc_port, served.process.pid)}
        port = free_port()
        command = [sys.executable, "-m", "bench.peers.plain_rows", str(model), str(port)]
        peers["fastapi"] = stack.enter_context(process("fastapi", command, port))
        port = free_port()
        command = [sys.executable, "-m", "bench.peers.plain_grpc", str(port)]
        peers["grpc-empty"] = stack.enter_context(process("grpc-empty", command, port))
        for number, streams in itertools.product(range(given.turns), given.streams):
            for road in ROADS if number % 2 == 0 else reversed(ROADS):
                found = turn(road, peers[road], streams, given.seconds)
                turns.setdefault((streams, road), []).append(found)
    results = {str(streams): {road: summary(turns[streams, road]) for road in ROADS} for streams in given.streams}
    rows = [
        (
            streams, road, f"{one['rows_per_second']:.0f}",
            f"{one['rows_per_second'] / roads['fastapi']['rows_per_second']:.2f}",
            f"{one['cpu_ms_per_row']:.3f}", f"{one['p50_ms']:.2f}", f"{one['p95_ms']:.2f}",
        )
        for streams, roads in results.items() for road, one in roads.items()
    ]  # fmt: skip
    finish("rows", results, columns=COLUMNS, rows=rows, as_json=given.json)


if __name__ == "__main__":
    main(sys.argv[1:])
