"""Helpers of the measurements of the daemon: a model, sound, a registry, a daemon process, its CPU time."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from streamer.engine.catalogue import find_models, resolve
from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.registry import Registry

SAMPLE = Path(__file__).parent.parent / "samples" / "digits.flac"

#: Settings without admission control, which would limit the measured load.
OPEN: dict[str, object] = {"max_load": 0, "overload_seconds": 3600}


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m bench {name}", description=text)
    made.add_argument("--json", action="store_true", help="one JSON object as the last line")
    made.add_argument("--model", help="shipped name or path; default: digits, else the tests' toy model")
    return made


@contextlib.contextmanager
def model_path(wanted: str | None) -> Iterator[Path]:
    shipped = {path.stem: path for path in find_models()}
    if wanted is not None or shipped:
        yield resolve(wanted or ("digits" if "digits" in shipped else next(iter(shipped))))
        return
    from tests.toys import toy_model

    with tempfile.TemporaryDirectory() as folder:
        yield toy_model(folder, hidden=256, layers=2, steps=8, tokens=tuple("_ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


def sound(rate: int, seconds: float, seed: int = 0, source: str = "speech") -> NDArray[np.int16]:
    """Input of a stream, int16 [seconds * rate]. Another ``seed`` starts at another position.

    ``source``: "speech" is the sample recording, repeated: a synthesiser reads digits, and more than half of it are
    pauses; the cost of a decoder depends on that. "noise" is not speech, so that a model is unsure at every step: the
    worst case of a beam search. Anything else is the path of a recording.
    """
    rng = np.random.default_rng(seed)
    if source == "noise":
        return _noise(rng, rate, seconds)
    said = _recorded(SAMPLE if source == "speech" else Path(source), rate)
    start, length = int(rng.integers(len(said))), int(seconds * rate)
    hiss = rng.normal(0, 3, length)
    return np.asarray((np.resize(np.roll(said, -start), length) + hiss).clip(-32768, 32767), np.int16)


@functools.lru_cache(4)
def _recorded(path: Path, rate: int) -> NDArray[np.int16]:
    import soundfile
    import soxr

    pcm, recorded = soundfile.read(path, dtype="int16", always_2d=True)
    return np.asarray(soxr.resample(pcm[:, 0], recorded, rate), np.int16)


def _noise(rng: np.random.Generator, rate: int, seconds: float) -> NDArray[np.int16]:
    """Bursts of noise of changing colour and level, with pauses."""
    pieces = []
    while sum(map(len, pieces)) < seconds * rate:
        length = int(rng.uniform(0.1, 0.5) * rate)
        tone = np.sin(np.arange(length) * rng.uniform(0.05, 0.8)) * rng.uniform(0, 8000)
        pieces += [tone + rng.normal(0, rng.uniform(10, 2000), length), rng.normal(0, 5, length // 3)]
    return np.concatenate(pieces)[: int(seconds * rate)].clip(-32768, 32767).astype(np.int16)


@contextlib.contextmanager
def running(path: Path, **settings: object) -> Iterator[Registry]:
    """A registry in this process, with a temporary state directory."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"models": (str(path),), "state_directory": Path(folder), **OPEN, **settings}
        registry = Registry(Settings(**given), Metrics())  # type: ignore[arg-type]
        try:
            registry.load()
            yield registry
        finally:
            registry.close()


class Served:
    """A daemon in a separate process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, ready_seconds: float) -> None:
        self.process, self.port, self.ready_seconds = process, port, ready_seconds

    def value(self, name: str) -> float:
        """The sum of a metric over its labels."""
        page = get(self.port, "/metrics")
        return sum(
            float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.split("{")[0].split(" ")[0] == name
        )

    def wait_for(self, name: str, value: float, patience: float = 120.0) -> None:
        deadline = time.monotonic() + patience
        while self.value(name) < value:
            if time.monotonic() > deadline:
                raise SystemExit(f"{name} has not reached {value:g} in {patience:g} s")
            time.sleep(0.2)

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def serving(path: Path, log: IO[bytes] | None = None, **environment: str) -> Iterator[Served]:
    """``streamer serve`` on a free port, ready, without admission control; ``environment``: its settings. ``log``: file
    of its records, by default standard error."""
    with tempfile.TemporaryDirectory() as folder:
        port_file = Path(folder) / "port"
        everybody = {f"STREAMER_{name.upper()}": str(value) for name, value in OPEN.items()}
        variables = {"STREAMER_STATE_DIRECTORY": folder, "STREAMER_LOG_LEVEL": "warning", **everybody, **environment}
        command = [sys.executable, "-m", "streamer", "serve", "--model", str(path), "--port", "0"]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--port-file", str(port_file)], env={**os.environ, **variables}, stderr=log
        )
        try:
            while not port_file.exists() or not ready(int(port_file.read_text())):
                if process.poll() is not None:
                    raise SystemExit("the daemon did not start")
                time.sleep(0.002)
            yield Served(process, int(port_file.read_text()), time.perf_counter() - begin)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def ready(port: int) -> bool:
    try:
        get(port, "/readyz")
    except OSError:
        return False
    return True


def chunk_bytes(model: Model) -> int:
    return 2 * model.manifest.chunk
