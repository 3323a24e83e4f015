"""A generator's stream that the daemon's end cuts off: where to go on, and nothing behind that."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.generators import Generators
from tests.engine.support import PATIENCE
from tests.engine.test_laws import CHARACTERS


def test_a_restart_tells_only_what_the_reader_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped when a chunk has been decoded and not yet told."""
    generators = Generators(Settings(state_directory=tmp_path, lanes=1, max_batch=1), Metrics())
    generators.load([CHARACTERS])
    task = generators._engines["characters"].task
    step, decoded, go_on, there = task.step, threading.Event(), threading.Event(), threading.Event()
    chunks: list[int] = []

    def slow(*given: Any) -> Any:
        events = step(*given)
        chunks.append(1)
        if len(chunks) == 3:
            decoded.set()
            assert go_on.wait(PATIENCE)
        return events

    monkeypatch.setattr(task, "step", slow)
    stream = generators.open("characters", {"seed": 1}, 400, 0, there.set)
    assert decoded.wait(PATIENCE)
    generators.drain()
    go_on.set()
    assert generators.close()
    events = []
    while (event := stream.get()) is not None:
        events.append(event)
    said = [event for event in events if event["type"] == "text"]
    assert [event["type"] for event in events] == ["text"] * len(said) + ["restart"]
    assert len(said) == 2
    assert events[-1]["position"] == said[-1]["position"] + len(said[-1]["text"])
