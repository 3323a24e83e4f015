"""Floods of the event loop, from one client or from two hundred, during which the health pages must answer.

Each flood comes from a separate process. The pages are requested continuously, each on a new connection, as by a probe.
On a busy machine the pages are slow without a flood, too, so their times before the flood are reported.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

from bench import setup
from bench.attack import AttackRow, Scale
from bench.attack.clients import percentile
from bench.attack.floods import KINDS

__all__ = ["CONNECTIONS", "PAGES", "flooded", "run"]

SECONDS = 8.0
PAGES = ("/healthz", "/readyz", "/metrics")
#: Seconds within which each page must be answered, and bytes by which the daemon may grow.
REACH, GROWTH = 0.3, 256 * 2**20
#: Numbers of connections of each kind. Floods that work with few connections are sent by few, and by many.
CONNECTIONS = {
    "tiny": (1, 50),
    "markers": (1, 50),
    "pings": (1, 50),
    "fragments": (1, 50),
    "resampled": (1, 8),
    "/healthz": (200,),
    "/metrics": (200,),
    "json": (8,),
    "packed": (8,),
}


def run(scale: Scale) -> Iterator[AttackRow]:
    seconds = max(1.0, SECONDS * scale.share)
    for kind, counts in CONNECTIONS.items():
        for count in dict.fromkeys(max(1, round(count * scale.share)) for count in counts):
            with setup.model_path(None) as path, setup.serving(path, STREAMER_LANES="1") as daemon:
                yield from flooded(daemon, kind, count, seconds)


def flooded(daemon: setup.Served, kind: str, count: int, seconds: float) -> Iterator[AttackRow]:
    what = f"{KINDS[kind]}, {count} connection{'s' if count > 1 else ''}"
    calm, _ = _probe(daemon.port, max(0.5, seconds / 8))
    before = daemon.resident_bytes()
    command = [sys.executable, "-m", "bench.attack.floods", kind, str(daemon.port), str(count)]
    flood = subprocess.Popen(command)
    try:
        _wait_for_flood(daemon)
        found, most = _probe(daemon.port, seconds, daemon)
    finally:
        flood.kill()
        flood.wait()
    for page, times in found.items():
        late = percentile(times, 0.99)
        text = f"{late:.3f} s ({len(times)} requests; before {percentile(calm[page], 0.99):.3f} s)"
        yield AttackRow("loop", f"{page} under {what}: p99", f"{REACH} s", text, late <= REACH)
    grown = most - before
    text = f"{grown / 2**20:.0f} MiB"
    yield AttackRow("loop", f"memory under {what}", f"{GROWTH >> 20} MiB more", text, grown <= GROWTH)
    after, _ = _probe(daemon.port, 0.5)
    late = max(map(max, after.values()))
    yield AttackRow("loop", f"pages once {KINDS[kind]} stop", f"{REACH} s", f"{late:.3f} s", late <= REACH)


def _wait_for_flood(daemon: setup.Served) -> None:
    """Wait until the daemon is busy with the flood, at most 20 s."""
    busy = daemon.cpu_seconds()
    deadline = time.monotonic() + 20
    while daemon.cpu_seconds() < busy + 0.2 and time.monotonic() < deadline:
        time.sleep(0.02)


def _probe(port: int, seconds: float, daemon: setup.Served | None = None) -> tuple[dict[str, list[float]], int]:
    """The seconds of each request by page, and the largest memory of the daemon in bytes."""
    found: dict[str, list[float]] = {page: [] for page in PAGES}
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for page, times in found.items():
            begin = time.perf_counter()
            with contextlib.suppress(OSError):
                setup.get(port, page)
            times.append(time.perf_counter() - begin)
        if daemon is not None:
            most = max(most, daemon.resident_bytes())
    return found, most
