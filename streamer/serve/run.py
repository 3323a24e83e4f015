"""From settings to a running daemon and the exit code of its process. Faulty settings are refused before slow work."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
from collections.abc import Callable
from pathlib import Path

import uvloop

from streamer.engine.model import ModelError
from streamer.serve import logs
from streamer.serve.access.tls import ServerTls, TlsError
from streamer.serve.access.tokens import TokenFileError
from streamer.serve.checked import settings_trouble, settings_warning
from streamer.serve.daemon import EX_CANTCREAT, EX_CONFIG, EX_UNAVAILABLE, Daemon
from streamer.serve.descriptors import raise_file_limit
from streamer.serve.notify import Notifier
from streamer.serve.ports import MissingExtraError
from streamer.serve.server import bind
from streamer.settings import Settings
from streamer.store import StoreError
from streamer.store.late import LateStore
from streamer.store.lock import StateFolder
from streamer.store.sessions import SqliteStore
from streamer.streams.loading import check_names

__all__ = ["run"]

log = logging.getLogger(__name__)

#: New objects after which the garbage collector looks for cycles: more than all current requests have.
YOUNG = 10_000


def run(settings: Settings, *, config: Path | None = None, port_file: Path | None = None) -> int:
    """Serve until a signal comes; returns the exit code. ``port_file`` gets the bound port once connections are
    taken."""
    logs.configure(settings.log_level, settings.log_format, text=settings.log_text)
    # Modules stay, so the collector need not look at them: that would stop all threads for a tenth of a second each
    # time. Models are not loaded yet: a reload may free them.
    gc.freeze()
    gc.set_threshold(YOUNG)
    notifier = Notifier.from_environment()
    raise_file_limit(settings)
    try:
        if trouble := settings_trouble(settings):
            log.error(trouble)
            notifier.close()
            return EX_CONFIG
        tls = ServerTls.of(settings)
        check_names(settings)
    except (TlsError, ModelError) as error:
        log.error(str(error))
        notifier.close()
        return EX_CONFIG
    if warning := settings_warning(settings):
        log.warning(warning)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        log.error(f"can't listen on {where}: {error.strerror or error}; choose another with --host or --port")
        notifier.close()
        return EX_UNAVAILABLE
    folder = StateFolder(settings.state_directory)

    def make() -> SqliteStore:
        folder.claim()
        return SqliteStore(settings.state_directory / "sessions.sqlite")

    try:
        store = LateStore(make)
        given = (settings, listener, store, notifier, config, port_file, folder, tls)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_live(functools.partial(Daemon, *given)))
    except (TokenFileError, MissingExtraError) as error:
        log.error(str(error))
        return EX_CONFIG
    except StoreError as error:
        log.error(f"{error}; choose another place with the setting state_directory")
        return EX_CANTCREAT
    finally:
        listener.close()
        notifier.close()
        folder.close()


async def _live(make: Callable[[], Daemon]) -> int:
    return await make().live()
