"""The daemon's life, in this order: load, ready, serve, drain, gone."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import uvicorn

from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.sensors.host import Sensors
from streamer.sensors.versions import SensorVersions
from streamer.serve import logs
from streamer.serve.access.gate import Access, Gate
from streamer.serve.access.tls import ServerTls
from streamer.serve.app import create_app
from streamer.serve.bounds import Bounds, RequestMemory
from streamer.serve.connections import Connections
from streamer.serve.disk_threads import set_disk_threads
from streamer.serve.handshakes import Handshakes
from streamer.serve.http import Http
from streamer.serve.inbox import Inbox
from streamer.serve.kserve.infer_http import INFER_PATH, InferEndpoint
from streamer.serve.kserve.listening import Grpc
from streamer.serve.kserve.service import InferenceService
from streamer.serve.loop_watch import LoopWatch
from streamer.serve.moving.routes import ROUTES, MovingRoutes
from streamer.serve.notify import Notifier
from streamer.serve.openai.realtime import REALTIME_PATH, Realtime
from streamer.serve.openai.routes import TRANSCRIPTIONS
from streamer.serve.otel import start_tracing
from streamer.serve.ports import AddressTakenError, MissingExtraError
from streamer.serve.readings.broker import Broker
from streamer.serve.readings.routes import WRITES
from streamer.serve.readings.subscribe import PATH, Subscribers
from streamer.serve.rows.routes import PREFIX
from streamer.serve.server import UvicornServer, write_port
from streamer.serve.stream.connection import admit
from streamer.serve.stream.connections import OpenConnection, StreamConnections
from streamer.serve.traced import Traced
from streamer.serve.turns import Turns
from streamer.serve.vosk.server import VoskServer
from streamer.serve.websocket import Socket
from streamer.serve.wyoming.server import WyomingServer
from streamer.settings import Settings, SettingsError
from streamer.store import Store
from streamer.store.late import LateStore
from streamer.store.lock import StateFolder
from streamer.streams.generators import Generators
from streamer.streams.registry import Registry

__all__ = ["EX_CANTCREAT", "EX_CONFIG", "EX_UNAVAILABLE", "Daemon"]

log = logging.getLogger(__name__)

#: Exit codes after sysexits.h: the address is taken; the state directory can't be written; settings or models can't be
#: used (a restart would not help).
EX_UNAVAILABLE, EX_CANTCREAT, EX_CONFIG = 69, 73, 78
STATUS_SECONDS = 5.0
#: The paths to which administrators bring streams and sensors.
LONG = tuple(route.path.partition("{")[0] for route in ROUTES if route.method == "PUT")


class Daemon:
    """The parts and their order; made inside the running event loop."""

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        store: Store,
        notifier: Notifier,
        config: Path | None,
        port_file: Path | None,
        folder: StateFolder | None = None,
        tls: ServerTls | None = None,
    ):
        self.settings = settings
        self.listener = listener
        self.notifier = notifier
        self._config = config
        self._port_file = port_file
        self._stop = asyncio.Event()
        self._tls = tls
        self._reloading: asyncio.Task[None] | None = None
        self.metrics = Metrics()
        self.tracer = start_tracing(settings, self.metrics)
        self.access = Access(settings, self.metrics)
        self.access.load()
        loop = asyncio.get_running_loop()
        self.watch, self.turns = LoopWatch(loop), Turns(loop)
        self.metrics.loop_late.set_function(self.watch.behind)
        self.registry = Registry(
            settings,
            self.metrics,
            store,
            gather=Inbox(loop).gather,
            quota=self.access.max_streams,
            behind=self._behind,
        )
        self.handshakes = Handshakes(
            loop,
            settings.max_connections,
            settings.handshake_seconds / 2,  # clients wait no longer than that for the whole
            refused=lambda: self.metrics.refusals.labels("handshakes").inc(),  # a row of the engine's page from then on
            taken=self.registry.headroom.taken,
            open=lambda: len(self.streams.connections),
        )
        self.metrics.waiting_connections.set_function(self.handshakes.__len__)
        self.sensors = Sensors(settings, self.metrics, claim=(folder or StateFolder(settings.state_directory)).claim)
        self.generators = Generators(settings, self.metrics)
        self.versions = (self.registry, SensorVersions(self.sensors), self.generators)
        self.streams = StreamConnections(self.registry, settings, self.metrics, loop)
        self.kserve = InferenceService(self.registry, settings, self.streams.outbox.put, lambda: self.streams.closed)
        self.memory = RequestMemory(self.metrics, settings.max_request_memory)
        self.grpc = Grpc(self.kserve, settings, self.memory, self.access, tls)
        self.realtime = Realtime(self.streams)
        self.vosk = VoskServer(self.streams, self.access, self.turns, self.handshakes)
        self.wyoming = WyomingServer(self.streams, self.access)
        self.subscribers = Subscribers(self.sensors, self.streams.outbox)
        self.broker = Broker(self.sensors, self.streams.outbox)
        self.server = self._make_server()
        set_disk_threads(settings.disk_threads)
        if isinstance(store, LateStore):
            store.when_open(functools.partial(self._store_opened, store))

    async def live(self) -> int:
        self._handle_signals()
        serving = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        await self.server.listening.wait()
        port = self.listener.getsockname()[1]
        log.info("listening", extra={"host": self.settings.host, "port": port})
        if self._port_file is not None:
            write_port(self._port_file, port)
        try:
            try:
                await self.grpc.start()
                await self.vosk.start()
                await self.wyoming.start()
                await asyncio.to_thread(self._load)
            except (ModelError, MissingExtraError) as error:
                log.error(str(error))
                return EX_CONFIG
            except AddressTakenError as error:
                log.error(str(error))
                return EX_UNAVAILABLE
            self.streams.closed = None
            self.broker.start()
            await self.wyoming.announce()
            self.notifier.ready(self._status())
            log.info("ready", extra={"models": [m["name"] for m in self._models()]})
            beating = asyncio.create_task(self._beat())
            await self._stop.wait()
            await self._drain()
            beating.cancel()
            return 0
        finally:
            self.streams.close()
            self._close_ports()
            self.realtime.close()
            self.vosk.close()
            await self.wyoming.close()
            self.subscribers.close()
            self.server.should_exit = True
            await serving
            await self.grpc.stop()
            ended = [await asyncio.to_thread(part.close) for part in (self.registry, self.sensors, self.generators)]
            if self.tracer is not None:
                await asyncio.to_thread(self.tracer.close)
            if not all(ended) and self._stop.is_set():
                log.error("a batch never came back: leaving without it")
                logging.shutdown()
                os._exit(0)  # drained; and the interpreter's own end might wait for that thread or crash with it

    # -- parts of a life ---------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self.registry.load()
        self.sensors.load(self.registry.others["forecast"])
        self.generators.load(self.registry.others["generate"])
        self.sensors.watch(self.subscribers.watch)
        self.broker.check()

    def _models(self) -> list[dict[str, Any]]:
        return self.registry.models() + self.sensors.describe() + self.generators.describe()

    def _make_server(self) -> UvicornServer:
        settings = self.settings
        answer = functools.partial(
            Socket,
            access=self.access,
            admit=self._admit,
            turns=self.turns,
            handshakes=self.handshakes,
            max_frame_bytes=settings.max_frame_bytes,
            ping_seconds=settings.ping_seconds,
            send_seconds=settings.send_seconds,
            linger_seconds=settings.linger_seconds,
        )
        request = functools.partial(
            Http,
            handshake_seconds=settings.handshake_seconds,
            max_request_bytes=settings.max_request_bytes,
            body_seconds=settings.body_seconds,
            long_body=_has_long_body,
            connections=Connections(self.metrics, settings.max_http_connections),
            linger_seconds=settings.linger_seconds,
            send_seconds=settings.send_seconds,
            turns=self.turns,
        )
        app = create_app(
            self.streams,
            self.metrics.registry,
            self._models,
            self._trouble,
            self.sensors,
            self.generators,
            self.kserve,
            MovingRoutes(self.registry, self.sensors, settings, self._reload_models, self.kserve),
            self._disk_trouble,
        )
        served = InferEndpoint(app, self.kserve)
        bounded = Bounds(served, self.metrics, settings.max_requests, self.memory)
        tls = self._tls
        return UvicornServer(
            uvicorn.Config(
                Traced(Gate(bounded, self.access)),
                http=request,  # type: ignore[arg-type]
                ws=answer,  # type: ignore[arg-type]  # called like the class it stands for
                ssl_context_factory=None if tls is None else lambda config, default: tls.context,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=int(settings.linger_seconds) + 1,
            ),
            settings.handshake_seconds,
        )

    def _admit(self, path: str) -> Callable[[Socket], Any] | tuple[int, str]:
        """The responder for a WebSocket at ``path``, or the HTTP status and text of the refusal."""
        if path == REALTIME_PATH:
            return self.realtime.admit()
        if path != PATH:
            return admit(self.streams, path)
        if self.streams.closed is not None:
            return 503, f"{': '.join(self.streams.closed)}\n"
        return self.subscribers.admit()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._terminate, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _terminate(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("second signal: exit at once, clients send again what was not saved")
            os._exit(128 + number)
        log.info("going down", extra={"signal": signal.Signals(number).name})
        self._stop.set()

    def _reload(self) -> None:
        """SIGHUP: the log level, tokens, certificates and model files that changed are read again; everything else
        needs a restart, which costs clients nothing but time."""
        if self.streams.closed is None and (self._reloading is None or self._reloading.done()):
            self._reloading = asyncio.create_task(self._reload_all())
        try:
            level = Settings.load(self._config).log_level
        except SettingsError as error:
            log.error(f"settings not reloaded: {error}")
            return
        logs.set_level(level)
        log.warning("log level reloaded", extra={"log_level": level})

    async def reload_access(self, *, always: bool = False) -> None:
        """Read tokens and certificates again if their files have changed, or ``always``; close connections whose token
        is gone."""
        await asyncio.to_thread(self.access.reload, always=always)
        if self._tls is not None:
            await asyncio.to_thread(self._tls.reload, always=always)
        peers: list[OpenConnection] = [*self.streams.connections, *self.subscribers.connections]
        for peer in peers:
            if peer.socket.grant.revoked:
                peer.socket.close(1008, "the token of this connection was removed")

    async def _reload_all(self) -> None:
        await self.reload_access(always=True)
        await asyncio.to_thread(self._reload_models)

    def _reload_models(self) -> dict[str, Any]:
        """Load model files that changed. In any thread but the loop's. A failure is logged and counted, and the old
        version serves on."""
        return {"models": {k: v for part in self.versions for k, v in part.reload().items()}}

    async def _beat(self) -> None:
        """Feed the watchdog while the engine makes progress; this coroutine runs only while the event loop does."""
        interval = min(self.notifier.watchdog_seconds or STATUS_SECONDS, STATUS_SECONDS)
        while True:
            await self.reload_access()
            trouble = self._trouble()
            if trouble is None:
                if self.notifier.watchdog_seconds is not None:
                    self.notifier.watchdog()
            else:
                log.error("the engine makes no progress", extra={"reason": trouble})
            if not self._stop.is_set():
                self.notifier.status(trouble or self._status())
            await asyncio.sleep(interval)

    async def _drain(self) -> None:
        """Finish what was received, save the sessions, close the clients' connections with the reason."""
        deadline = monotonic() + self.settings.drain_seconds
        self.notifier.stopping("draining")
        self.streams.drain()
        self.generators.drain()
        self._close_ports()
        await self.broker.stop()
        left = max(0.0, deadline - monotonic())  # side by side: neither has more time for the other's work
        sensors, saved = await asyncio.gather(
            asyncio.to_thread(self.sensors.drain, left), asyncio.to_thread(self.registry.drain, left)
        )
        self.streams.outbox.flush()
        await self.kserve.save_positions()
        log.info("drained", extra={"saved": saved, "sensors": sensors})

    def _close_ports(self) -> None:
        """Take no new connections."""
        self.vosk.stop_listening()
        self.wyoming.stop_listening()

    def _trouble(self) -> str | None:
        return self.registry.stuck() or self.sensors.stuck() or self.generators.stuck()

    def _behind(self) -> float:
        """Seconds by which rows and results are late on this loop."""
        return max(self.watch.behind(), self.streams.outbox.waited())

    def _disk_trouble(self) -> str | None:
        """Why received data can't be saved; ``None``: it can."""
        return self.registry.disk_trouble() or self.sensors.disk_trouble()

    def _store_opened(self, store: LateStore, late: bool) -> None:
        if (loss := store.loss) is not None:
            self.metrics.damaged("sessions", *loss.counts())
        if late:
            self.registry.wake_late()

    def _status(self) -> str:
        if (disk := self._disk_trouble()) is not None:
            return f"nothing is saved: {disk}"
        if (unread := self.broker.trouble()) is not None:
            return unread
        names = ", ".join(model["name"] for model in self._models())
        return f"{len(self.streams.connections)} connections on {names}"


def _has_long_body(path: str) -> bool:
    """Whether requests to the path bring readings, rows, tensors or recordings."""
    long = path in WRITES or path == TRANSCRIPTIONS or path.startswith((PREFIX, *LONG))
    return long or INFER_PATH.fullmatch(path) is not None
