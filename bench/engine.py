"""Saturated throughput of the engine as a share of the bare ONNX Runtime loop at its best batch size.

Bare: as many threads as lanes; each runs the model on one fixed batch and feeds the states back, nothing else. In
process: the same chunks through sessions, scheduler and arena, without and with the decoder; the difference is the
decoder's share of the CPU. WebSocket: a daemon and a load generator in separate processes; only the daemon's CPU time
counts. All run in turns, and the score of a turn is chunks per CPU second, so that other work on the machine affects
all alike. Shares are medians of the ratios within a turn; the share by wall clock is reported, too. Streams are fed
with speech (:func:`setup.sound`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import setup
from bench.report import finish
from streamer.engine.batch import rungs
from streamer.engine.denormals import flush_denormals
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.tasks import Event


def bare(model: Model, batch: int, threads: int, seconds: float) -> tuple[float, float]:
    """Chunks per CPU second and per second."""
    spec = model.manifest.input
    pcm = setup.sound(spec.sample_rate or 16000, 4 * model.manifest.chunk_seconds + 1)
    chunks = [np.resize(pcm[i * 997 :], (batch, *spec.chunk_shape)).astype(spec.dtype) for i in range(4)]
    counts = [0] * threads
    stop = threading.Event()

    def loop(lane: int) -> None:
        flush_denormals()
        stepper = Stepper(model, batch)
        while not stop.is_set():
            stepper.step(chunks[counts[lane] % 4])
            counts[lane] += 1

    lanes = [threading.Thread(target=loop, args=(lane,)) for lane in range(threads)]
    begin, cpu = time.perf_counter(), time.process_time()
    for lane in lanes:
        lane.start()
    time.sleep(seconds)
    stop.set()
    for lane in lanes:
        lane.join()
    done = sum(counts) * batch
    return done / (time.process_time() - cpu), done / (time.perf_counter() - begin)


class NoTask:
    """A task that ignores the outputs."""

    def open(self, options: Mapping[str, Any]) -> None:
        return None

    def step(self, memories: Sequence[Any], outputs: Mapping[str, Any], steps: Sequence[int]) -> list[list[Event]]:
        return [[] for _ in memories]

    def copy(self, memory: Any) -> Any:
        return memory

    def finish(self, memory: Any) -> list[Event]:
        return []

    def save(self, memory: Any) -> bytes:
        return b""

    def load(self, data: bytes) -> Any:
        return None


class InProcess:
    """Endless streams in one registry; they run during turns, and are held between them."""

    def __init__(self, path: Path, streams: int, lanes: int, decode: bool, sound: str) -> None:
        self._context = setup.running(
            path, lanes=lanes, capacity=streams, buffer_seconds=1e6, checkpoint_seconds=3600.0, idle_seconds=0.0
        )
        self.registry = self._context.__enter__()
        if not decode:
            for lane in next(iter(self.registry._engines.values()))._lanes:
                lane.task = NoTask()
        rate = int(self.registry.models()[0]["sample_rate"])
        self.sessions = [
            self.registry.open(model=None, sample_rate=rate, sink=lambda events: None) for _ in range(streams)
        ]
        self.chunk_seconds = float(self.registry.models()[0]["chunk_seconds"])
        self.data = [setup.sound(rate, 60, seed, sound).tobytes() for seed in range(8)]
        for session in self.sessions:
            session.hold()

    def chunks(self) -> float:
        return (
            self.registry.metrics.registry.get_sample_value("streamer_chunks_total", {"model": self.sessions[0].model})
            or 0.0
        )

    def turn(self, seconds: float, expected: float) -> tuple[float, float]:
        """Chunks per CPU second and per second. ``expected``: chunks per second, which determines the input."""
        need = 3 * seconds * expected * self.chunk_seconds / len(self.sessions)
        for number, session in enumerate(self.sessions):
            while session.buffered_seconds < need:
                session.feed(self.data[number % 8])
        begin, cpu, before = time.perf_counter(), time.process_time(), self.chunks()
        for session in self.sessions:
            session.go_on()
        time.sleep(seconds)
        done, used, took = self.chunks() - before, time.process_time() - cpu, time.perf_counter() - begin
        for session in self.sessions:
            session.hold()
        engine = next(iter(self.registry._engines.values()))
        while not engine._scheduler.idle():
            time.sleep(0.001)
        assert min(session.buffered_seconds for session in self.sessions) > 0, (
            "a stream ran dry: the turn does not count"
        )
        return done / used, done / took

    def close(self) -> None:
        self._context.__exit__(None, None, None)


class WebSocket:
    """A daemon, and clients that send as fast as back-pressure allows; they are stopped between turns."""

    def __init__(self, path: Path, streams: int, lanes: int, sound: str) -> None:
        # stopped clients do not answer pings, nor read
        patience = {"STREAMER_PING_SECONDS": "3600", "STREAMER_SEND_SECONDS": "3600"}
        self._context = setup.serving(path, STREAMER_LANES=str(lanes), **patience)
        self.served = self._context.__enter__()
        self._load = subprocess.Popen([sys.executable, "-m", "bench.load", str(self.served.port), str(streams), sound])
        try:
            self.served.wait_for("streamer_chunks_total", 4 * streams)  # every stream has started
        except BaseException:
            self.close()
            raise
        self._pause()
        self.used = self.took = self.decoding = self.busy = 0.0

    def turn(self, seconds: float) -> tuple[float, float]:
        """Chunks per CPU second of the daemon, and per second."""
        served, names = self.served, ("chunks_total", "decode_seconds_sum", "busy_seconds_total")
        self._load.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        before = [served.value(f"streamer_{name}") for name in names]
        begin, cpu = time.perf_counter(), served.cpu_seconds()
        time.sleep(seconds)
        used, took = served.cpu_seconds() - cpu, time.perf_counter() - begin
        done, decoding, busy = (served.value(f"streamer_{name}") - was for name, was in zip(names, before, strict=True))
        self._pause()
        self.used, self.took = self.used + used, self.took + took
        self.decoding, self.busy = self.decoding + decoding, self.busy + busy
        return done / used, done / took

    def _pause(self) -> None:
        self._load.send_signal(signal.SIGSTOP)
        done = -1.0
        while done != (done := self.served.value("streamer_chunks_total")):  # until all sent chunks are run
            time.sleep(0.2)

    def close(self) -> None:
        self._load.kill()
        self._load.wait(30)
        self._context.__exit__(None, None, None)


def main(argv: list[str]) -> None:
    parser = setup.parser("engine", __doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sound", default="speech", help="speech, noise, or the path of a recording")
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args(argv)
    lanes = arguments.lanes
    with setup.model_path(arguments.model) as path:
        model = Model.load(path)
        ladder = {b: bare(model, b, lanes, 0.5)[0] for b in rungs(min(64, model.manifest.max_batch))}
        best = max(ladder, key=lambda b: ladder[b])
        names = ["bare ONNX Runtime", "engine", "engine and decoder", "WebSocket, decoder"]
        scores: list[list[tuple[float, float]]] = []  # by turn, in the order of ``names``
        with contextlib.ExitStack() as stack:
            sides: list[InProcess | WebSocket] = []
            for made in (
                lambda: InProcess(path, arguments.streams, lanes, False, arguments.sound),
                lambda: InProcess(path, arguments.streams, lanes, True, arguments.sound),
                lambda: WebSocket(path, arguments.streams, lanes, arguments.sound),
            ):
                sides.append(made())
                stack.callback(sides[-1].close)
            inside, served = [side for side in sides if isinstance(side, InProcess)], sides[-1]
            assert isinstance(served, WebSocket)
            rate = bare(model, best, lanes, 0.5)[1]
            for side in inside:
                side.turn(0.3, rate)
            for _ in range(arguments.turns):
                turn = [bare(model, best, lanes, arguments.seconds)]
                turn += [side.turn(arguments.seconds, rate * 1.3) for side in inside]
                scores.append([*turn, served.turn(arguments.seconds)])
            limit = inside[0].registry.models()[0]["max_batch"]
    per_cpu = [statistics.median(turn[i][0] for turn in scores) for i in range(4)]
    shares = [statistics.median(turn[i][0] / turn[0][0] for turn in scores) for i in range(4)]
    walls = [statistics.median(turn[i][1] / turn[0][1] for turn in scores) for i in range(4)]
    results: dict[str, Any] = {
        "model": model.manifest.name,
        "lanes": lanes,
        "streams": arguments.streams,
        "sound": arguments.sound,
        "bare_best_batch": best,
        "engine_max_batch": limit,
        "bare_chunks_per_cpu_second": per_cpu[0],
        "engine_share": shares[1],
        "engine_share_wall": walls[1],
        "engine_and_decoder_share": shares[2],
        "engine_and_decoder_share_wall": walls[2],
        "decoding_share_of_cpu": statistics.median(1 - turn[2][0] / turn[1][0] for turn in scores),
        "websocket_share": shares[3],
        "websocket_share_of_in_process": statistics.median(turn[3][0] / turn[2][0] for turn in scores),
        "websocket": {
            "per_cpu": per_cpu[3],
            "per_second": statistics.median(turn[3][1] for turn in scores),
            "cpus": served.used / served.took,
            "decoding": served.decoding / served.busy,
        },
        "realtime_streams_per_cpu": per_cpu[2] * model.manifest.chunk_seconds,
    }
    batches = (f"{best}", f"up to {limit}", f"up to {limit}", f"{arguments.streams} clients")
    table = [
        (name, batch, f"{score:.0f}", f"{share:.3f}", f"{wall:.3f}")
        for name, batch, score, share, wall in zip(names, batches, per_cpu, shares, walls, strict=True)
    ]
    table.append(("decoding", "", "", f"{results['decoding_share_of_cpu']:.3f}", ""))

    def plot(axes: Any) -> None:
        axes.plot(list(ladder), list(ladder.values()), "o-", label="bare ONNX Runtime")
        for number, (name, score) in enumerate(zip(names[1:], per_cpu[1:], strict=True)):
            axes.axhline(score, color=f"C{number + 1}", label=name)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("batch")
        axes.set_ylabel("chunks per CPU second")
        axes.set_ylim(bottom=0)
        axes.legend()

    columns = ("path", "batch", "chunks per CPU second", "share", "share by wall clock")
    finish("engine", results, columns=columns, rows=table, plot=plot, as_json=arguments.json)
