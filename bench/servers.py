"""One model behind three servers: this daemon, sherpa-onnx's C++ WebSocket server, plain FastAPI.

The weights are random, in the shape that sherpa-onnx's server loads (``bench/peers/weights.py``); the daemon serves the
same file adopted. Clients are a separate process, everything runs on this machine, and the servers take turns at every
load, so that other work on the machine affects all alike. CPU is the time of the server's process for a second of
sound; latency is the time from the message with the last sample of a chunk to its answer. ``full``: 64 clients that
send as fast as they are answered. Decoding is greedy; every server has its defaults, except ports, threads (one a core)
and sherpa-onnx's batch (64). Only the daemon writes snapshots to the disk, acknowledges, and sends a marker a chunk.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import setup
from bench.peers.shapes import CHUNK, RATE
from bench.report import finish

SHERPA = "sherpa-onnx-online-websocket-server"
KINDS = ("streamer", "sherpa-onnx", "fastapi")
FULL = 64
#: Seconds that a server may take to start.
PATIENCE = 120
COLUMNS = ("clients", "server", "CPU ms a second of sound", "to ours", "p50 ms", "p95 ms", "of real time")


@dataclass(frozen=True)
class ComparedServer:
    """A running server."""

    kind: str
    port: int
    pid: int


def sherpa() -> str | None:
    """The path of sherpa-onnx's server, if the package ``sherpa-onnx-bin`` is installed beside this Python or on the
    path."""
    return shutil.which(SHERPA, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def process(kind: str, command: Sequence[str], port: int) -> Iterator[ComparedServer]:
    """Start a server and wait until its port answers; kill it at the end."""
    with tempfile.TemporaryFile() as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if running.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"{kind} did not start:\n{log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield ComparedServer(kind, port, running.pid)
        finally:
            running.kill()
            running.wait(30)


@contextlib.contextmanager
def servers(kinds: Sequence[str], weights: Path, adopted: Path) -> Iterator[list[ComparedServer]]:
    threads = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        peers = []
        for kind in kinds:
            port = free_port()
            if kind == "streamer":
                served = stack.enter_context(setup.serving(adopted, STREAMER_LANES=str(threads)))
                peers.append(ComparedServer(kind, served.port, served.process.pid))
            elif kind == "sherpa-onnx":
                command = [
                    str(sherpa()), f"--port={port}", f"--t-one-ctc-model={weights / 'model.onnx'}",
                    f"--tokens={weights / 'tokens.txt'}", "--sample-rate=8000", "--input-sample-rate=8000",
                    f"--num-work-threads={threads}", "--max-batch-size=64", "--num-threads=1",
                    f"--log-file={weights / 'sherpa.log'}",
                ]  # fmt: skip
                peers.append(stack.enter_context(process(kind, command, port)))
            else:
                command = [sys.executable, "-m", "bench.peers.plain", str(weights / "model.onnx"), str(port)]
                peers.append(stack.enter_context(process(kind, command, port)))
        yield peers


def turn(peer: ComparedServer, clients: int, full: bool, warm: float, seconds: float) -> dict[str, Any]:
    """Apply one load to one server."""
    command = [
        sys.executable, "-m", "bench.peers.clients", peer.kind, str(peer.port), str(clients), str(warm), str(seconds),
    ]  # fmt: skip
    with subprocess.Popen([*command, *(["--full"] if full else [])], stdout=subprocess.PIPE, text=True) as load:
        assert load.stdout is not None
        if load.stdout.readline().strip() != "begin":
            raise SystemExit(f"the clients of {peer.kind} failed")
        cpu = cpu_seconds(peer.pid)
        found: dict[str, Any] = json.loads(load.stdout.readline())
        found["cpu"] = cpu_seconds(peer.pid) - cpu
        load.wait(60)
    return found


def summary(turns: Sequence[dict[str, Any]], clients: int) -> dict[str, float]:
    """The figures of all turns of one load on one server."""
    sound = sum(one["chunks"] for one in turns) * CHUNK / RATE
    waits = np.sort(np.concatenate([one["waits"] for one in turns])) * 1e3
    late = np.concatenate([one["late"] or [0.0] for one in turns]) * 1e3
    took = sum(one["seconds"] for one in turns)
    return {
        "cpu_ms": 1e3 * sum(one["cpu"] for one in turns) / max(sound, 1e-9),
        "p50_ms": float(np.percentile(waits, 50)),
        "p95_ms": float(np.percentile(waits, 95)),
        "speed": sound / took / clients,
        "clients_late_p95_ms": float(np.percentile(late, 95)),
        "spread": statistics.pstdev(one["cpu"] / max(one["chunks"], 1) for one in turns)
        / max(statistics.fmean(one["cpu"] / max(one["chunks"], 1) for one in turns), 1e-9),
    }


def prepared(folder: Path, small: bool) -> tuple[Path, Path]:
    """The weights' folder and the adopted file, made if they do not exist."""
    from bench.peers import weights
    from export.adopt.recogniser import adopt_folder

    written = folder / ("small" if small else "large")
    adopted = written.with_suffix(".streamer.onnx")
    if not adopted.exists():
        shutil.rmtree(written, ignore_errors=True)
        weights.write(written, *((64, 1) if small else ()))
        adopt_folder(written, adopted, long_chunks=50)
    return written, adopted


def main(argv: list[str]) -> None:
    parser = setup.parser("servers", __doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 32, 100, 200], help="in real time")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one turn")
    parser.add_argument("--warm", type=float, default=2.0, help="seconds before each")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="1 and 32 clients, one short turn each")
    parser.add_argument("--small", action="store_true", help="a model of next to no cost, to measure the servers")
    parser.add_argument("--no-full", action="store_true", help="leave out the clients that send as fast as they can")
    parser.add_argument("--folder", type=Path, help="folder of the two files, kept for the next run")
    given = parser.parse_args(argv)
    if given.quick:
        given.clients, given.seconds, given.warm, given.turns = [1, 32], 2.0, 0.6, 1
    kinds = [kind for kind in KINDS if kind != "sherpa-onnx" or sherpa() is not None]
    if len(kinds) < len(KINDS):
        print("without sherpa-onnx: pip install sherpa-onnx-bin", file=sys.stderr)
    loads = [(clients, False) for clients in given.clients] + ([] if given.no_full else [(FULL, True)])
    turns: dict[tuple[int, bool, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        written, adopted = prepared(given.folder or Path(temporary), given.small)
        with servers(kinds, written, adopted) as peers:
            for number, (clients, full) in itertools.product(range(given.turns), loads):
                for peer in peers if number % 2 == 0 else reversed(peers):
                    found = turn(peer, clients, full, given.warm, given.seconds)
                    turns.setdefault((clients, full, peer.kind), []).append(found)
    results: dict[str, dict[str, dict[str, float]]] = {}
    rows = []
    for clients, full in loads:
        name = f"{clients}, full" if full else f"{clients}"
        results[name] = {kind: summary(turns[clients, full, kind], clients) for kind in kinds}
        ours = results[name]["streamer"]["cpu_ms"]
        for kind, one in results[name].items():
            rows.append(
                (
                    name, kind, f"{one['cpu_ms']:.1f}", f"{one['cpu_ms'] / max(ours, 1e-9):.2f}",
                    f"{one['p50_ms']:.1f}", f"{one['p95_ms']:.1f}", f"{one['speed']:.2f}",
                )
            )  # fmt: skip
    finish("servers", results, columns=COLUMNS, rows=rows, as_json=given.json)


if __name__ == "__main__":
    main(sys.argv[1:])
