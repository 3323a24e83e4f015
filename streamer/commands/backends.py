"""Backends of the commands: streams are decoded in this process or by a daemon. Blocking, thread-safe."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import urlsplit

from streamer.commands import CommandError

if TYPE_CHECKING:
    from streamer.client import StreamClient
    from streamer.streams.registry import Registry
    from streamer.streams.session import Session

__all__ = ["Backend", "Feed", "Local", "Remote", "Sink", "connect"]

Event = dict[str, Any]
Sink = Callable[[Event], None]
T = TypeVar("T")

CONNECT_SECONDS = 5.0
#: Seconds that a file's final may wait for its second pass; long, since no live listener waits.
PATIENCE = 24 * 3600.0
#: Codes of refusals that the user's input caused.
BAD_INPUT = frozenset({"unknown_model", "options", "rate", "bad_audio", "not_pcm", "bad_frame"})


class Feed(Protocol):
    """One stream. Its events go to the sink given to ``open``, from another thread, ``end`` or ``error`` last.
    ``ready``: the stream's description, as the ``ready`` frame of the protocol."""

    ready: dict[str, Any]

    def send(self, pcm: bytes) -> None: ...
    def end(self) -> None: ...
    def close(self) -> None: ...


class Backend(Protocol):
    rate: int  # Hz: what the model wants, and the best choice for a source that may choose

    def open(self, rate: int, sink: Sink, *, overflow: str = "wait") -> Feed: ...
    def close(self) -> None: ...


def connect(
    model: str | None,
    url: str | None,
    streams: int,
    *,
    task: str = "transcribe",
    options: Mapping[str, Any] | None = None,
    revise: str | None = None,
    live: bool = False,
    token: str | None = None,
    ca: Path | None = None,
) -> Backend:
    """The backend for a model. ``streams``: how many run at a time. ``task``: that of the model. ``options``: those of
    each stream. ``revise``: the Whisper model of the second pass in this process, empty for none; a daemon has its own,
    for which any name means yes. ``live``: a user is watching, so a final has its usual deadline. ``token`` and ``ca``:
    for a daemon.

    Raises :class:`CommandError` and the engine's own errors.
    """
    wishes = dict(options or {})
    if revise is not None and url:
        wishes["revise"] = bool(revise)
    return Remote(url, model, wishes, token, ca) if url else Local(model, streams, task, wishes, revise or "", live)


class Local:
    """A registry in this process, with one model and nothing on the disk."""

    def __init__(
        self,
        model: str | None,
        streams: int,
        task: str,
        options: Mapping[str, Any],
        revise: str = "",
        live: bool = False,
    ) -> None:
        from prometheus_client import CollectorRegistry

        from streamer.engine.catalogue import ENGLISH, find_models, resolve
        from streamer.engine.model import ModelError
        from streamer.metrics import Metrics
        from streamer.settings import Settings
        from streamer.streams.registry import Registry

        if model is None:
            shipped = [path.stem for path in find_models()]
            if not shipped:
                raise ModelError("no model is installed: name a file with --model FILE.onnx")
            model = ENGLISH if ENGLISH in shipped else shipped[0]
        settings = Settings(
            models=(str(resolve(model)),),
            capacity=streams,
            max_batch=streams,  # the only streams: no measuring of batch sizes that will not occur,
            idle_seconds=0,  # no idle time,
            max_load=0,  # and no one to keep in time: files wait for one another
            overload_seconds=3600,
            revise=revise,
            revise_seconds=10.0 if live else PATIENCE,  # a file goes no further while its finals are heard again
            max_waiting_finals=64 * streams,
            max_waiting_final_seconds=PATIENCE,
        )
        self._registry: Registry = Registry(settings, Metrics(CollectorRegistry()), None)
        self._registry.load()
        served = self._registry.models()
        if not served or served[0]["task"] != task:
            self._registry.close()
            other = served[0]["task"] if served else "forecast"
            raise CommandError(f"{model} is a model for another task: streamer {other} runs it", 2)
        facts = served[0]
        self.rate, self._options = int(facts["sample_rate"]), options

    def open(self, rate: int, sink: Sink, *, overflow: str = "wait") -> Feed:
        return _LocalFeed(self._registry, rate, sink, overflow, self._options)

    def close(self) -> None:
        self._registry.close()


class _LocalFeed:
    def __init__(self, registry: Registry, rate: int, sink: Sink, overflow: str, options: Mapping[str, Any]) -> None:
        from streamer.refusals import Refused

        self._registry = registry
        self._room = threading.Event()
        self._over = False
        self._sink = sink
        while True:
            try:
                self._session: Session = registry.open(
                    model=None, sample_rate=rate, sink=self._take, overflow=overflow, options=options
                )
                break
            except Refused as error:
                if error.reason != "overload":  # that passes: it is our own other files
                    raise CommandError(error.message, 2 if error.reason in BAD_INPUT else 1) from error
                time.sleep(0.2)
        self._session.on_drained = self._room.set
        self.ready = registry.describe(self._session)

    def _take(self, events: list[Event]) -> None:
        """Called by a lane."""
        for event in events:
            self._over = self._over or event["type"] in ("end", "error")
            self._sink(event)
        if self._over:
            self._room.set()

    def send(self, pcm: bytes) -> None:
        while self._session.full and not self._over:
            self._room.wait()
            self._room.clear()
        if not self._over:
            self._session.feed(pcm)

    def end(self) -> None:
        self._session.end()

    def close(self) -> None:
        """Delete the stream, also one that has ended: no client resumes it, and there may be thousands of files."""
        self._registry.discard(self._session)


class Remote:
    """Streams of a daemon. One thread runs an event loop for the clients of all streams."""

    def __init__(
        self,
        url: str,
        model: str | None,
        options: Mapping[str, Any],
        token: str | None = None,
        ca: Path | None = None,
    ) -> None:
        from streamer.client.connection import without_secrets

        if "://" not in url:
            url = f"ws://{url}"
        shown = without_secrets(url)
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme in ("wss", "https") else 80)
        except ValueError as error:
            raise CommandError(f"--url {shown}: {error}", 2) from error
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise CommandError(f"--url {shown}: expected something like ws://127.0.0.1:8765", 2)
        try:  # the client waits for a daemon that went away; one that was never there is an error at once
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise CommandError(
                f"no daemon at {shown} ({reason}): start one with streamer serve, or leave --url out"
            ) from error
        if ca is not None and not ca.is_file():
            raise CommandError(
                f"--ca {ca}: there is no such file: name one with the certificates to trust (PEM), or leave it out", 2
            )
        self.url, self.shown, self.token, self.ca = url, shown, token, ca
        self.rate = 16000
        self._model, self._options = model, options
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="client", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it here."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise CommandError(
                "the stream was closed by the daemon: its log says why; start the command again"
            ) from error
        except BaseException:
            future.cancel()
            raise

    def open(self, rate: int, sink: Sink, *, overflow: str = "wait") -> Feed:
        return self.run(_RemoteFeed.open(self, rate, sink, overflow, self._model, self._options))

    def close(self) -> None:
        async def cancel_all() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # transports that were aborted are closed in the loop's next turn

        future = asyncio.run_coroutine_threadsafe(cancel_all(), self._loop)
        try:
            future.result(CONNECT_SECONDS)
        except FutureTimeoutError:
            return  # the thread is a daemon thread: the process may go
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _RemoteFeed:
    def __init__(self, backend: Remote, client: StreamClient, sink: Sink) -> None:
        self._backend = backend
        self._client = client
        self._sink = sink
        self.ready = client.ready
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(
        cls, backend: Remote, rate: int, sink: Sink, overflow: str, model: str | None, options: Mapping[str, Any]
    ) -> _RemoteFeed:
        from streamer.client import StreamClient, StreamError

        client = StreamClient(
            backend.url,
            sample_rate=rate,
            model=model,
            overflow=overflow,
            options=options,
            token=backend.token,
            ca=backend.ca,
        )
        try:
            await client.__aenter__()
        except StreamError as error:
            raise CommandError(f"{backend.shown}: {error.message}", 2 if error.code in BAD_INPUT else 1) from error
        return cls(backend, client, sink)

    async def _read(self) -> None:
        from streamer.client import StreamError

        try:
            async for event in self._client:
                self._sink(event)
        except StreamError as error:
            self._sink({"type": "error", "code": error.code, "message": error.message})

    def send(self, pcm: bytes) -> None:
        self._backend.run(self._client.send(pcm))

    def end(self) -> None:
        self._backend.run(self._client.end())

    def close(self) -> None:
        self._backend.run(self._close())

    async def _close(self) -> None:
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._client.close()
