"""New versions of model files, while the daemon runs.

A changed file is loaded, judged and warmed beside the serving one. From then on new streams use it. Streams of the old
version finish on the old version, also those that sleep meanwhile, and across a restart: their states do not fit other
weights. The old version is removed once it had no stream for as long as a stream may sleep (``keep_seconds``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.engine.engine import Engine
from streamer.engine.model import Model, ModelError
from streamer.engine.versions import check_promises, reload_file

if TYPE_CHECKING:
    from streamer.metrics import Metrics
    from streamer.settings import Settings
    from streamer.streams.kept_models import KeptModels
    from streamer.streams.session import Session

__all__ = ["Reloader"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Retired:
    """``since``: when a stream last used it, in monotonic seconds."""

    engine: Engine
    since: float


class Reloader:
    """``engines`` by name; new versions replace the old ones there. ``load(path)`` gives a warm engine, ``start``
    starts it. ``sessions``: all that are awake. ``kept``: files of versions that streams may come back to, across
    restarts; ``None``: after a restart there are only the serving versions."""

    def __init__(
        self,
        engines: dict[str, Engine],
        settings: Settings,
        metrics: Metrics,
        load: Callable[[Path], Engine],
        start: Callable[[Engine], None],
        sessions: Callable[[], list[Session]],
        clock: Callable[[], float],
        kept: KeptModels | None = None,
    ) -> None:
        self._engines, self._settings, self._metrics = engines, settings, metrics
        self._load, self._start, self._sessions, self._clock, self._kept = load, start, sessions, clock, kept
        self._one = threading.Lock()
        self._retired: list[Retired] = []
        metrics.old_models.set_function(lambda: len(self._retired))

    @property
    def old(self) -> list[Engine]:
        """Versions that have streams, or may have."""
        return [retired.engine for retired in list(self._retired)]

    def of(self, model: str, digest: str) -> Engine | None:
        """The version of a model that a stream belongs to, if it is still served; a version of an earlier run is
        loaded, and the call waits for that."""
        if (found := self._awake(model, digest)) is not None or self._kept is None or model not in self._engines:
            return found
        with self._one:
            if (found := self._awake(model, digest)) is None and (path := self._kept.find(digest)) is not None:
                found = self._again(model, path)
        return found

    def keep(self) -> None:
        """Keep the files of the serving versions, for streams that come back after a file was replaced."""
        if self._kept is not None:
            for engine in list(self._engines.values()):
                self._kept.keep(engine.model.path, engine.model.digest)
            self._kept.bound({engine.model.digest for engine in (*self._engines.values(), *self.old)})

    def reload(self) -> dict[str, dict[str, Any]]:
        """Outcomes by model, as :func:`streamer.engine.versions.reload_file`."""
        with self._one:
            self.sweep()
            return {
                name: reload_file(engine.model, self._metrics, partial(self._take, name, engine))
                for name, engine in list(self._engines.items())
            }

    def sweep(self) -> None:
        """Close old versions to which no stream can come back."""
        now, used = self._clock(), {session.engine for session in self._sessions()}
        for retired in list(self._retired):
            if retired.engine in used:
                retired.since = now
            elif now - retired.since > self._settings.keep_seconds:
                self._retired.remove(retired)
                if self._kept is not None and not self._serves(retired.engine.model.digest):
                    self._kept.forget(retired.engine.model.digest)
                retired.engine.close(self._settings.stuck_seconds)
                log.info("an old version is gone", extra=_facts(retired.engine))

    def close(self) -> list[bool]:
        return [engine.close(self._settings.stuck_seconds) for engine in self.old]

    def _take(self, name: str, engine: Engine, path: Path) -> Model:
        new = self._judged(name, path)
        if self._kept is not None:
            self._kept.retire(engine.model.digest)
            self._kept.keep(path, new.model.digest)
        self._retired.append(Retired(engine, self._clock()))  # before others can miss it
        self._engines[name] = new
        self._start(new)
        return new.model

    def _awake(self, model: str, digest: str) -> Engine | None:
        now = self._engines.get(model)
        there = [*([] if now is None else [now]), *self.old]
        return next((e for e in there if e.manifest.name == model and e.model.digest == digest), None)

    def _serves(self, digest: str) -> bool:
        return any(engine.model.digest == digest for engine in (*self._engines.values(), *self.old))

    def _again(self, model: str, path: Path) -> Engine | None:
        """Load a version of an earlier run. ``None``: it can't serve any more."""
        try:
            self._check_room(path)
            engine = self._load(path)
        except ModelError as error:
            log.error("a version before this one can't serve its streams", extra={"model": model, "error": str(error)})
            return None
        if engine.manifest.name != model:
            return None
        self._start(engine)
        self._retired.append(Retired(engine, self._clock()))
        log.warning("an old version serves its streams again", extra=_facts(engine))
        return engine

    def _check_room(self, path: Path) -> None:
        if len(self._retired) >= self._settings.max_old_models:
            text = f"{len(self._retired)} old versions have streams or may have (max_old_models)"
            raise ModelError(f"{path}: {text}: wait, or restart")

    def _judged(self, name: str, path: Path) -> Engine:
        self._check_room(path)
        check_promises(path)
        new = self._load(path)
        if new.manifest.name != name:
            raise ModelError(f"{path} holds a model named {new.manifest.name!r} now: a restart serves it")
        old = self._engines[name].manifest
        if new.manifest.row_dtype != old.row_dtype or new.manifest.task != old.task:
            raise ModelError(f"{path} takes other rows, or is for another task, than before: a restart serves it")
        return new


def _facts(engine: Engine) -> dict[str, Any]:
    return {"model": engine.manifest.name, "version": engine.manifest.version, "digest": engine.model.digest[:12]}
