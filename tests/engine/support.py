"""What the engine's tests need: registries, a sink that can be waited for, and the answer by the plainest loop."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine.catalogue import find_models
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.metrics import Metrics
from streamer.refusals import BadInput, Refused
from streamer.settings import Settings
from streamer.store.sessions import SqliteStore
from streamer.streams.registry import Registry
from streamer.streams.revision import SecondRecogniser
from streamer.streams.session import Session
from streamer.tasks import create

PATIENCE = 20.0

Event = dict[str, Any]


class Events:
    """A sink that keeps everything and can be waited for."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, events: list[Event]) -> None:
        with self._changed:
            self.got.extend(dict(event) for event in events)
            self._changed.notify_all()

    def wait(self, *types: str) -> Event:
        """The first event of one of the types, whenever it comes."""
        with self._changed:
            found = self._changed.wait_for(lambda: next((e for e in self.got if e["type"] in types), None), PATIENCE)
            assert found, f"none of {types} in {[event['type'] for event in self.got]}"
            return found

    def of(self, *types: str) -> list[Event]:
        with self._changed:
            return [event for event in self.got if event["type"] in types]

    @property
    def results(self) -> list[Event]:
        """The numbered ones, without what depends on the time of day."""
        with self._changed:
            return [event for event in self.got if "seq" in event]


class Clock:
    """Real time and a jump into the future."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return monotonic() + self.ahead


@contextmanager
def running(
    *models: Path,
    folder: Path,
    store: bool = False,
    clock: Callable[[], float] = monotonic,
    recogniser: SecondRecogniser | None = None,
    **settings: Any,
) -> Iterator[Registry]:
    """A loaded registry whose keeper stays out of the way (``checkpoint_seconds`` is long unless given)."""
    patient = {"overload_seconds": 60.0, "max_load": 0.0}  # the machine may be slow, and tests are not about that
    given = {"lanes": 2, "capacity": 64, "checkpoint_seconds": 3600.0, **patient, **settings}
    paths = tuple(str(model) for model in models)
    kept = SqliteStore(folder / "sessions.sqlite") if store else None
    settings = Settings(models=paths, state_directory=folder, **given)
    registry = Registry(settings, Metrics(), kept, clock, recogniser=recogniser)
    try:
        registry.load()
        yield registry
    finally:
        registry.close()


def audio_models() -> list[Path]:
    """The shipped files that a registry serves."""
    return [path for path in find_models() if Model.load(path).manifest.input.sample_rate is not None]


def levels(events: Sequence[Event]) -> NDArray[np.int32]:
    """The samples of all ``audio`` events. Beside a batch of another size one may be rounded to its neighbour."""
    sounds = (base64.b64decode(event["pcm"]) for event in events if event["type"] == "audio")
    return np.frombuffer(b"".join(sounds), "<i2").astype(np.int32)


def count(registry: Registry, name: str, /, **labels: str) -> float:
    """A counter's value on the page."""
    return registry.metrics.registry.get_sample_value(f"streamer_{name}", labels) or 0.0


def refused(registry: Registry, reason: str, **wishes: object) -> Refused:
    before = count(registry, "refusals_total", reason=reason)
    with pytest.raises(Refused) as caught:
        registry.open(**{"model": None, "sample_rate": 8000, "sink": Events(), **wishes})  # type: ignore[arg-type]
    assert caught.value.reason == reason
    assert count(registry, "refusals_total", reason=reason) == before + 1
    return caught.value


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + PATIENCE
    while not holds():
        assert monotonic() < deadline
        threading.Event().wait(0.001)


def slots_used(registry: Registry) -> int:
    """Slots taken once the lanes have nothing under way: a slot whose chunk is in flight is free a moment later."""
    deadline = monotonic() + PATIENCE
    while any(not engine._scheduler.idle() for engine in registry._engines.values()) and monotonic() < deadline:
        threading.Event().wait(0.001)
    return sum(model["streams"] for model in registry.models())


def pieces(pcm: NDArray[np.int16], cuts: Sequence[int]) -> list[bytes]:
    return [piece.tobytes() for piece in np.split(pcm, sorted(cuts))]


def reference(path: Path, pcm: NDArray[np.int16]) -> list[Event]:
    """Numbered events of the whole stream, by a loop over one row: no engine, no threads, no batch."""
    model = Model.load(path)
    manifest, task = model.manifest, create(model.manifest)
    memory, stepper = task.open({}), Stepper(model)
    left = -(-len(pcm) // manifest.hop) + manifest.flush
    events = []
    at = 0
    while left:
        chunk = np.zeros((1, manifest.chunk), np.int16)
        part = pcm[at : at + manifest.chunk]
        chunk[0, : len(part)] = part
        at += len(part)
        outputs = stepper.step(chunk)
        steps = min(manifest.steps, left)
        left -= steps
        events += task.step([memory], outputs, [steps])[0]
    events += task.finish(memory)
    found = [event.to_dict() for event in events] + [{"type": "end", "position": len(pcm)}]
    return [{**event, "seq": number} for number, event in enumerate(found, 1)]


def feed_rows(session: Session, pieces: Sequence[NDArray[Any]], *, patient: bool = True) -> None:
    """All rows, waiting where the buffer is full. Not ``patient``: what a stream that fails has not taken is left."""
    room = threading.Event()
    session.on_drained = room.set
    for piece in pieces:
        while session.full and session.state == "active":
            assert room.wait(0.01 if not patient else PATIENCE) or not patient
            room.clear()
        try:
            session.feed_rows(piece)
        except BadInput:
            if patient or session.state == "active":
                raise
            return


def feed(session: Session, data: Sequence[bytes]) -> None:
    """All of it, waiting where the buffer is full."""
    room = threading.Event()
    session.on_drained = room.set
    for piece in data:
        while session.full:
            assert room.wait(PATIENCE)
            room.clear()
        session.feed(piece)
