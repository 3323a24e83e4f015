"""Makes a warm engine from a model file, and describes models and their streams for clients."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer import __version__
from streamer.contract.manifest import Manifest
from streamer.engine.arena import Arena, ArenaError
from streamer.engine.catalogue import resolve
from streamer.engine.engine import Engine
from streamer.engine.load import batch_costs
from streamer.engine.model import Model, ModelError
from streamer.engine.trust import model_keys
from streamer.engine.tuner import Tuning, tune
from streamer.likeness import KINDS
from streamer.metrics import Metrics
from streamer.names import name_of
from streamer.streams.captions import captioner
from streamer.streams.finals import WrittenFinals
from streamer.streams.numbers import formatter
from streamer.streams.revision import Reviser, SecondRecogniser
from streamer.streams.session import Session
from streamer.streams.whisper import Whisper, WhisperError, check_whisper
from streamer.tasks import Task, TaskError, create
from streamer.tasks.tensors import WithTensors

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = [
    "OtherTaskError",
    "check_names",
    "describe",
    "describe_stream",
    "load_engine",
    "load_model",
    "load_writers",
    "make_engine",
    "make_reviser",
    "show_facts",
    "watch_engine",
]

log = logging.getLogger(__name__)

#: Tasks whose models do not serve streams of rows here: sensors have routes of their own, generators take no input.
ELSEWHERE = ("forecast", "generate")


class OtherTaskError(ModelError):
    """Another part of the daemon serves this model; ``task`` is its task."""

    def __init__(self, path: Path, task: str) -> None:
        super().__init__(f"{path}: the task {task} is not served at /v1/stream")
        self.path, self.task = path, task


def load_model(path: Path, settings: Settings) -> Model:
    """Load a model within the bounds of the settings, and check its signature if they ask for one. Raises
    :class:`ModelError`."""
    return Model.load(path, max_bytes=settings.max_model_bytes, keys=model_keys(settings, path))


def load_engine(path: Path, settings: Settings, metrics: Metrics) -> Engine:
    """Not started yet. Raises :class:`ModelError`, and :class:`OtherTaskError` for a model that is served elsewhere."""
    model = load_model(path, settings)
    if model.manifest.task in ELSEWHERE:
        raise OtherTaskError(path, model.manifest.task)
    return make_engine(model, settings, metrics)


def make_engine(model: Model, settings: Settings, metrics: Metrics) -> Engine:
    """Warm, its lanes not started. Raises :class:`ModelError`."""
    path, manifest = model.path, model.manifest
    try:
        task: Task = create(manifest, settings.max_model_bytes)
    except TaskError as error:
        raise ModelError(f"{path}: {error}") from error
    if manifest.task == "transcribe":
        task = WrittenFinals(task)
    if manifest.task != "generate":
        task = WithTensors(task, manifest)
    lanes = settings.lanes or len(os.sched_getaffinity(0))
    fitting = max(1, settings.max_model_bytes // (lanes * max(1, manifest.chunk_bytes)))
    most = min(manifest.max_batch, settings.capacity, fitting)
    try:
        Arena.check(manifest.state_bytes, settings.capacity, settings.max_state_bytes)
        if settings.max_batch:
            tuning = Tuning(min(settings.max_batch, fitting), min(settings.max_batch, fitting))
        else:
            tuning = tune(model, most, settings.state_directory / "tuning.json")
        engine = Engine(
            model,
            task,
            metrics.model(manifest.name),
            lanes=lanes,
            capacity=settings.capacity,
            limit=tuning.batch,
            wait=tuning.wait if settings.batch_wait_ms < 0 else settings.batch_wait_ms / 1000,
            pays=tuning.pays,
            max_state_bytes=settings.max_state_bytes,
        )
    except ArenaError as error:
        raise ModelError(f"{path}: {error} (settings capacity and max_state_bytes)") from error
    except ModelError:
        raise
    except Exception as error:  # errors of the runtime, for a graph that is broken or needs too much memory
        said = f"{type(error).__name__}: {str(error)[:300]}"
        raise ModelError(f"{path} can't be run ({said}): streamer check {path} shows where") from error
    engine.load.expect(batch_costs(model, engine.limit))
    return engine


def check_names(settings: Settings) -> None:
    """Check the names of all models, before the slow work. Raises :class:`ModelError`."""
    for name in settings.models:
        resolve(name)
    if settings.revise:
        try:
            check_whisper(settings.revise)
        except WhisperError as error:
            raise ModelError(f"{error} (setting revise; off: no second pass)") from error


def make_reviser(settings: Settings, metrics: Metrics, recogniser: SecondRecogniser | None = None) -> Reviser | None:
    """The second pass, its threads started; ``None`` where the settings have none. Raises :class:`ModelError`."""
    workers = settings.revise_workers
    if recogniser is None:
        if not settings.revise:
            return None
        threads = max(1, (settings.revise_threads or len(os.sched_getaffinity(0)) // 2) // workers)
        try:
            recogniser = Whisper(settings.revise, workers=workers, threads=threads, language=settings.revise_language)
        except WhisperError as error:
            raise ModelError(str(error)) from error
    reviser = Reviser(
        recogniser,
        workers=workers,
        waiting=settings.max_waiting_finals,
        seconds=settings.max_waiting_final_seconds,
        deadline=settings.revise_seconds,
        longest=settings.max_final_seconds,
        count=lambda outcome: metrics.finals.labels(outcome).inc(),
        observe=metrics.revise_seconds.observe,
    )
    metrics.waiting_finals.set_function(lambda: reviser.waiting)
    metrics.waiting_final_seconds.set_function(lambda: reviser.waiting_seconds)
    return reviser


def load_writers(settings: Settings, tasks: Iterable[str]) -> None:
    """Load the models for written finals now, and not on the event loop when the first stream asks. Raises
    :class:`ModelError` if the settings need one that can't be loaded."""
    transcribes = "transcribe" in tasks
    for load, setting, what in (
        (formatter, settings.numbers, "numbers can't be written in digits"),
        (captioner, settings.text, "finals can't be punctuated"),
    ):
        if not transcribes and setting != "written":
            continue
        try:
            load()
        except ModelError as error:
            if setting == "written":
                raise
            log.info(what, extra={"reason": str(error)})


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
        **_tensors(manifest),
        "capacity": engine.arena.capacity,
        "streams": engine.arena.used,
        "max_batch": engine.limit,
        "digest": engine.model.digest,
    }


def describe_stream(session: Session, manifest: Manifest) -> dict[str, Any]:
    """The description of a stream for its client, JSON-ready. ``resumed``: the stream existed before. ``position``:
    rows that were received when the client came. ``seq``: of the last event."""
    sound = {} if session.sample_rate is None else {"sample_rate": session.sample_rate}
    return {
        "stream": name_of(session.id),
        "model": session.model,
        "task": manifest.task,
        **sound,
        "chunk_seconds": manifest.chunk_seconds,
        "latency_seconds": manifest.latency * manifest.chunk_seconds / manifest.steps,
        "position": session.joined_at,
        "seq": session.seq,
        "resumed": session.resumed,
        **({"output_rate": manifest.input.sample_rate} if manifest.task == "enhance" else {}),
        **_tensors(manifest),
    }


def _tensors(manifest: Manifest) -> dict[str, Any]:
    """Inputs, conditions and outputs, and rows a chunk. An input's or condition's shape is that of one row, an output's
    that of a whole chunk."""

    def said(name: str, dtype: str, shape: tuple[int, ...]) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": list(shape)}

    return {
        "inputs": [said(i.name, i.dtype, i.chunk_shape[1:]) for i in manifest.inputs],
        "conditions": [said(c.name, c.dtype, c.shape) for c in manifest.conditions],
        "outputs": [said(o.name, o.dtype, o.shape) for o in manifest.outputs],
        "row_bytes": manifest.row_dtype.itemsize,
        "chunk_rows": manifest.chunk,
        "latency_rows": manifest.latency * manifest.hop,
    }


def show_facts(settings: Settings, metrics: Metrics) -> None:
    """Show the bounds and the versions on the metrics page."""
    for name, value in settings.limits().items():
        metrics.limit.labels(name).set(value)
    python, runtime = platform.python_version(), metadata.version("onnxruntime")
    metrics.build.info({"version": __version__, "python": python, "onnxruntime": runtime})
    for kind in KINDS:  # so that an alert sees the first increase: from 0, not from an absent series
        metrics.suspected_streams.labels(kind)


def watch_engine(engine: Engine, sessions: Callable[[], list[Session]] = list) -> None:
    """Make the gauges of the engine's model show this version from now on; they are read when the metrics page is made.
    ``sessions`` gives the sessions of all models."""
    name, arena, table = engine.manifest.name, engine.arena, engine.metrics
    each = arena.bytes_per_slot

    def mine() -> list[Session]:
        return [session for session in sessions() if session.model == name]

    def number(state: str, attached: bool | None) -> Callable[[], float]:
        return lambda: sum(s.state == state and attached in (None, s.sink is not None) for s in mine())

    table.watch(
        lag_max=engine.waited,
        buffered=lambda: sum(s.buffered_seconds for s in mine()),
        buffered_rows=lambda: sum(s.buffered_rows for s in mine()),
        state_bytes=lambda: arena.used * each,
        state_bytes_bound=lambda: arena.capacity * each,
        capacity=lambda: arena.capacity,
        max_batch=lambda: engine.limit,
        batch_wait=lambda: engine.wait,
        lanes=lambda: engine.lanes,
    )

    def lists() -> float:
        return len({tuple(s.options["hotwords"]) for s in mine() if s.options.get("hotwords")})

    table.table.hotword_sets.labels(name).set_function(lists)
    for shown, state, attached in (
        ("active", "active", True),
        ("detached", "active", False),
        ("ended", "ended", None),
    ):
        table.table.sessions.labels(name, shown).set_function(number(state, attached))
