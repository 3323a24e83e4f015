"""Generators in the daemon: a request names a model, a seed and how much; a slot of the engine writes it.

What is written is a function of the request alone (the seed is state, noise is counted), so nothing of a stream has to
be kept: whoever lost the connection, or the daemon, asks the same again with ``after``, and gets the rest bit for bit.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamer.engine.engine import Engine, EngineStream
from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.refusals import NoSlot
from streamer.streams.loading import describe, load_model, make_engine, watch_engine
from streamer.tasks import Event
from streamer.tasks.generate import Generate

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["GeneratorStream", "Generators"]

log = logging.getLogger(__name__)


class GeneratorStream:
    """One stream, a client of the engine. ``length``: tokens, prompt included. ``after``: tokens that the
    client has already: they give no events.

    ``wake`` is called from a lane when :meth:`get` has something; it must not block. At most ``bound`` events wait: a
    stream whose reader is slow is not run.
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
        self.model, self.length = engine.manifest.name, length
        self.memory = engine.task.open(wish)
        self._engine, self._task, self._after, self._bound, self._wake = engine, engine.task, after, bound, wake
        self._waiting: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._told = after  # tokens that the reader has, or will have once what waits is read
        self._running = self._ended = False
        self._parting: Sequence[dict[str, Any]] = ()  # given out once the slot is free
        self._stream: EngineStream | None = None  # until it has ended
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
                self._engine.ready(self._stream)
            return event

    def close(self) -> None:
        with self._lock:
            self._release()

    def stop(self, retry_after: float) -> None:
        """The daemon goes down: ask again, ``after`` what you have. Told at once, whatever is under way."""
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
        told = [event.to_dict() for event in events] if self._is_new() else []
        if self.memory.position >= self.length:
            told += [event.to_dict() for event in self._task.finish(self.memory)]
            self._last(*told, {"type": "end", "position": self.memory.position})
            return False
        with self._lock:
            if self._ended:  # meanwhile; its last event stays the last
                return False
            self._waiting.extend(told)
            self._told = max(self._told, self.memory.position)
            self._running = not self._ended and self._room()
            more = self._running
        if told:
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
        """A chunk that contains ``after`` is given whole. Notes are given from the first on: they have times."""
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
        return stream is None or self._engine.close_stream(stream)


class Generators:
    """The generators among the models that are served."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self._engines: dict[str, Engine] = {}
        self._streams: set[GeneratorStream] = set()

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

    def stuck(self) -> str | None:
        late = self.settings.stuck_seconds
        stuck = [name for name, engine in self._engines.copy().items() if engine.stuck(late)]
        return f"no batch of {stuck[0]} has come back for {late:g} s" if stuck else None

    def open(
        self, model: str | None, wish: Mapping[str, Any], length: int, after: int, wake: Callable[[], None]
    ) -> GeneratorStream:
        """Raises ``KeyError`` for a model that is not served, ``ValueError`` for a wish that does not fit, and
        :class:`NoSlot`."""
        if model is None and len(self._engines) == 1:
            (model,) = self._engines
        if model not in self._engines:
            known = ", ".join(self._engines) or "none"
            raise KeyError(f"no generator {model!r} is served; there is {known}: name one in the setting models")
        most = self.settings.max_generated_tokens
        if not 1 <= length <= most:
            raise ValueError(f"length is {length}: 1 to {most} tokens (max_generated_tokens)")
        engine = self._engines[model]
        stream = GeneratorStream(engine, wish, length, after, self.settings.max_unread_events, wake)
        self._streams.add(stream)
        self.metrics.opened.labels(model).inc()
        return stream

    def leave(self, stream: GeneratorStream) -> None:
        stream.close()
        self._streams.discard(stream)

    def drain(self) -> None:
        """Tell everybody to ask again."""
        for stream in list(self._streams):
            stream.stop(1.0)

    def close(self) -> bool:
        """False if a lane is stuck."""
        for stream in list(self._streams):
            self.leave(stream)
        ended = [engine.close(self.settings.stuck_seconds) for engine in self._engines.copy().values()]
        return all(ended)
