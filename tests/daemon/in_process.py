"""The same registry without a daemon around it: what a daemon's answers are compared with."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.registry import Registry

__all__ = ["run_in_process"]


def run_in_process(model: Path, pcm: bytes, rate: int) -> list[dict[str, Any]]:
    """Every numbered event of one stream fed in one piece."""
    registry = Registry(Settings(models=(str(model),), lanes=1, capacity=1, buffer_seconds=3600), Metrics(), None)
    registry.load()
    events: list[dict[str, Any]] = []
    over = threading.Event()

    def sink(given: list[dict[str, Any]]) -> None:
        events.extend(event for event in given if "seq" in event)
        if given[-1]["type"] in ("end", "error"):
            over.set()

    try:
        session = registry.open(model=None, sample_rate=rate, sink=sink)
        session.feed(pcm)
        session.end()
        assert over.wait(60)
    finally:
        registry.close()
    return events
