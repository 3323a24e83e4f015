"""From a model file to an engine that is warm, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.engine.arena import ArenaError
from streamer.engine.engine import Engine
from streamer.engine.model import Model, ModelError
from streamer.engine.tuner import tune
from streamer.metrics import Metrics
from streamer.streams.session import Session
from streamer.tasks import TaskError, create

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["NoAudioError", "describe", "load_engine", "make_engine"]


class NoAudioError(ModelError):
    """A model that takes something else than audio; ``task`` is what it is for."""

    def __init__(self, message: str, path: Path, task: str) -> None:
        super().__init__(message)
        self.path, self.task = path, task


def load_engine(path: Path, settings: Settings, metrics: Metrics, sessions: Callable[[], list[Session]]) -> Engine:
    """Not started yet. ``sessions`` gives those of all models, for the gauges. Raises :class:`ModelError`."""
    model = Model.load(path)
    manifest = model.manifest
    if variables := manifest.options.get("variables"):
        raise ModelError(
            f"{path}: forecasts rows of {len(variables)} variables, and the daemon takes sensors one by one: "
            f"run it with streamer forecast --model {path}, and serve forecast-universal"
        )
    if manifest.input.sample_rate is None:
        message = f"{path}: its input has no sample rate, and its task is {manifest.task}"
        raise NoAudioError(message, path, manifest.task)
    return make_engine(model, settings, metrics, sessions)


def make_engine(
    model: Model, settings: Settings, metrics: Metrics, sessions: Callable[[], list[Session]] = list
) -> Engine:
    """Warm, its lanes not started. Raises :class:`ModelError`."""
    path, manifest = model.path, model.manifest
    try:
        task = create(manifest)
    except TaskError as error:
        raise ModelError(f"{path}: {error}") from error
    lanes = settings.lanes or len(os.sched_getaffinity(0))
    most = min(manifest.max_batch, settings.capacity)
    try:
        engine = Engine(
            model,
            task,
            metrics.model(manifest.name),
            lanes=lanes,
            capacity=settings.capacity,
            limit=settings.max_batch or tune(model, most, settings.state_directory / "tuning.json"),
            max_state_bytes=settings.max_state_bytes,
        )
    except ArenaError as error:
        raise ModelError(f"{path}: {error} (settings capacity and max_state_bytes)") from error
    _watch(engine, lanes, sessions)
    return engine


def describe(engine: Engine) -> dict[str, Any]:
    """JSON-ready."""
    manifest = engine.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "licence": manifest.licence,
        "sample_rate": manifest.input.sample_rate,
        "chunk_seconds": manifest.chunk_seconds,
        "latency_seconds": manifest.latency * manifest.chunk_seconds / manifest.steps,
        "capacity": engine.arena.capacity,
        "streams": engine.arena.used,
        "max_batch": engine.limit,
        "digest": engine.model.digest,
    }


def _watch(engine: Engine, lanes: int, sessions: Callable[[], list[Session]]) -> None:
    """Gauges that are read when the page is."""
    name, arena, table = engine.manifest.name, engine.arena, engine.metrics
    each = arena.bytes_per_slot

    def mine() -> list[Session]:
        return [session for session in sessions() if session.model == name]

    def number(state: str, attached: bool | None) -> Callable[[], float]:
        return lambda: sum(s.state == state and attached in (None, s.sink is not None) for s in mine())

    table.watch(
        lag_max=engine.waited,
        buffered=lambda: sum(s.buffered_seconds for s in mine()),
        state_bytes=lambda: arena.used * each,
        state_bytes_bound=lambda: arena.capacity * each,
        capacity=lambda: arena.capacity,
        max_batch=lambda: engine.limit,
        lanes=lambda: lanes,
    )
    for shown, state, attached in (
        ("active", "active", True),
        ("detached", "active", False),
        ("ended", "ended", None),
    ):
        table.table.sessions.labels(name, shown).set_function(number(state, attached))
