"""Generators in the daemon: a request names a model, a seed and a length; a slot of the engine generates the tokens.

The output is a function of the request alone (the seed is state, noise is a counter), so no stream has to be saved:
after a lost connection or a restart a client repeats its request with ``after``, and gets the rest bit for bit.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamer.engine.engine import Engine, EngineStream
from streamer.engine.model import Model, ModelError
from streamer.engine.versions import check_promises, reload_file
from streamer.metrics import Metrics
from streamer.refusals import NoSlot
from streamer.streams.loading import describe, load_model, make_engine, watch_engine
from streamer.tasks import Event
from streamer.tasks.generate import Generate

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["GeneratorStream", "Generators", "VersionGoneError"]

log = logging.getLogger(__name__)


class VersionGoneError(LookupError):
    """The model version that wrote the first part is no longer served: the client has to start over."""


class GeneratorStream:
    """One stream, a client of the engine. ``length``: tokens, prompt included. ``after``: tokens that the
    client has already: they give no events.

    ``wake`` is called from a lane when :meth:`get` has an event; it must not block. At most ``bound`` events wait: a
    stream with a slow reader pauses.
    """

    def __init__(
        self,
        engine: Engine,
        wish: Mapping[str, Any],
        length: int,
        after: int,
        bound: int,
        wake: Callable[[], None],
    ) -> None:
        assert isinstance(engine.task, Generate)
        self.model, self.digest, self.length = engine.manifest.name, engine.model.digest, length
        self.memory = engine.task.open(wish)
        self.engine, self._task, self._after, self._bound, self._wake = engine, engine.task, after, bound, wake
        self._waiting: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._told = after  # tokens that the reader has, or will have once the waiting events are read
        self._running = self._ended = False
        self._parting: Sequence[dict[str, Any]] = ()  # sent once the slot is free
        self._stream: EngineStream | None = None  # until the stream has ended
        stream = engine.open(self)
        if stream is None:
            raise NoSlot(f"all {engine.arena.capacity} slots of {engine.manifest.name} are taken")
        self._stream, self._running = stream, True
        engine.ready(stream)

    # -- from the reader -----------------------------------------------------------------------------------------------

    def get(self) -> dict[str, Any] | None:
        """The next event, ``None`` where none waits. The last one has the type ``end``, ``restart`` or ``error``."""
        with self._lock:
            event = self._waiting.popleft() if self._waiting else None
            if self._stream is not None and not self._running and not self._ended and self._room():
                self._running = True
                self.engine.ready(self._stream)
            return event

    def close(self) -> None:
        with self._lock:
            self._release()

    def stop(self, retry_after: float) -> None:
        """The daemon goes down: the event ``restart`` tells the client to repeat its request with ``after``. It is sent
        at once, also with a chunk in flight."""
        with self._lock:
            if self._ended:
                return
            self._release()
            self._waiting.append({"type": "restart", "position": self._told, "retry_after": retry_after})
        self._wake()

    # -- from a lane ---------------------------------------------------------------------------------------------------

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        with self._lock:
            self._running = not self._ended and self._room()
            if not self._running:
                return -1
        step = self.memory.position // self._task.width
        (row,) = rows.values()
        row[:] = self._task.controls(self.memory.request, step, len(row))
        return min(len(row), -(-self.length // self._task.width) - step)

    def deliver(self, events: Sequence[Event]) -> bool:
        sent = [event.to_dict() for event in events] if self._is_new() else []
        if self.memory.position >= self.length:
            sent += [event.to_dict() for event in self._task.finish(self.memory)]
            self._last(*sent, {"type": "end", "position": self.memory.position})
            return False
        with self._lock:
            if self._ended:  # closed meanwhile; its last event stays the last
                return False
            self._waiting.extend(sent)
            self._told = max(self._told, self.memory.position)
            self._running = not self._ended and self._room()
            more = self._running
        if sent:
            self._wake()
        return more

    def fail(self, message: str) -> None:
        self._last({"type": "error", "code": "model_failed", "message": message})

    def released(self) -> None:
        with self._lock:
            self._waiting.extend(self._parting)
            self._parting = ()
        self._wake()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _is_new(self) -> bool:
        """Whether an event is new to the client. A chunk that contains ``after`` is sent whole. Notes are sent from the
        first on, since their times need the earlier ones."""
        return self.memory.position > self._after or self._task.options.kind == "notes"

    def _room(self) -> bool:
        return len(self._waiting) < self._bound

    def _last(self, *events: dict[str, Any]) -> None:
        with self._lock:
            if self._ended:
                return
            if self._release():
                self._waiting.extend(events)
            else:
                self._parting = events
        self._wake()

    def _release(self) -> bool:
        """False if the slot is not free before :meth:`released` is called."""
        self._ended = True
        stream, self._stream = self._stream, None
        return stream is None or self.engine.close_stream(stream)


class Generators:
    """The generators among the models that are served."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self._engines: dict[str, Engine] = {}
        self._old: list[Engine] = []  # earlier versions with streams
        self._streams: set[GeneratorStream] = set()
        self._one = threading.Lock()  # one reload at a time
        self._choosing = (
            threading.Lock()
        )  # guards the choice of a version for a stream, and the check that a version has no streams
        metrics.old_generators.set_function(lambda: len(self._old))

    def load(self, paths: Sequence[Path]) -> None:
        """Raises :class:`ModelError`."""
        for path in paths:
            engine = make_engine(load_model(path, self.settings), self.settings, self.metrics)
            if self._engines.setdefault(engine.manifest.name, engine) is not engine:
                raise ModelError(f"two generators are named {engine.manifest.name!r}: serve one")
        for engine in self._engines.values():
            watch_engine(engine)
            engine.start()

    def describe(self) -> list[dict[str, Any]]:
        return [describe(engine) for engine in self._engines.copy().values()]

    def reload(self) -> dict[str, dict[str, Any]]:
        """Outcomes by model, as :func:`streamer.engine.versions.reload_file`: later requests get the new version,
        running ones are finished by the old version."""
        with self._one:
            self._sweep()
            return {
                name: reload_file(engine.model, self.metrics, partial(self._take, engine))
                for name, engine in self._engines.copy().items()
            }

    def _take(self, old: Engine, path: Path) -> Model:
        name = old.manifest.name
        if len(self._old) >= self.settings.max_old_models:
            text = f"{len(self._old)} old versions of generators are still writing (max_old_models)"
            raise ModelError(f"{path}: {text}: wait, or restart")
        check_promises(path)
        new = make_engine(load_model(path, self.settings), self.settings, self.metrics)
        if new.manifest.name != name or new.manifest.task != old.manifest.task:
            raise ModelError(f"{path} holds another model, or one for another task, now: a restart serves it")
        watch_engine(new)
        new.start()
        with self._choosing:
            self._old.append(old)
            self._engines[name] = new
        self._sweep()
        return new.model

    def _sweep(self) -> None:
        """Close old versions whose requests are finished."""
        with self._choosing:
            used = {stream.engine for stream in self._streams.copy()}
            over = [engine for engine in self._old if engine not in used]
            self._old = [engine for engine in self._old if engine in used]
        for engine in over:
            engine.close(self.settings.stuck_seconds)

    def stuck(self) -> str | None:
        late = self.settings.stuck_seconds
        engines = [*self._engines.copy().items(), *((old.manifest.name, old) for old in self._old.copy())]
        stuck = [name for name, engine in engines if engine.stuck(late)]
        return f"no batch of {stuck[0]} has come back for {late:g} s" if stuck else None

    def open(
        self,
        model: str | None,
        wish: Mapping[str, Any],
        length: int,
        after: int,
        wake: Callable[[], None],
        digest: str | None = None,
    ) -> GeneratorStream:
        """``digest``: of the required version. Raises ``KeyError`` for a model that is not served, ``ValueError`` for
        invalid options, :class:`VersionGoneError` and :class:`NoSlot`."""
        if model is None and len(self._engines) == 1:
            (model,) = self._engines
        if model not in self._engines:
            known = ", ".join(self._engines) or "none"
            raise KeyError(f"no generator {model!r} is served; there is {known}: name one in the setting models")
        most = self.settings.max_generated_tokens
        if not 1 <= length <= most:
            raise ValueError(f"length is {length}: 1 to {most} tokens (max_generated_tokens)")
        with self._choosing:
            engine = self._engines[model]
            if digest is not None and digest != engine.model.digest:
                text = f"{model} is served in another version now ({engine.model.digest[:12]}, not {digest[:12]})"
                raise VersionGoneError(f"{text}: what it wrote can't be gone on with, begin again")
            stream = GeneratorStream(engine, wish, length, after, self.settings.max_unread_events, wake)
            self._streams.add(stream)
        self.metrics.opened.labels(model).inc()
        return stream

    def leave(self, stream: GeneratorStream) -> None:
        stream.close()
        self._streams.discard(stream)
        if self._old:
            threading.Thread(target=self._sweep_alone, name="old generators", daemon=True).start()

    def _sweep_alone(self) -> None:
        with self._one:
            self._sweep()

    def drain(self) -> None:
        """Tell every client to repeat its request after the restart."""
        for stream in list(self._streams):
            stream.stop(1.0)

    def close(self) -> bool:
        """False if a lane is stuck."""
        for stream in list(self._streams):
            self.leave(stream)
        ended = [engine.close(self.settings.stuck_seconds) for engine in (*self._engines.copy().values(), *self._old)]
        return all(ended)
