"""A transcriber's stream for other projects' protocols, on the event loop: sound in, events out, waits in between.

:mod:`streamer.streams.exchange` does the same for one request and its answer. Most of these protocols have no way to
resume a stream: such a stream is in no snapshot.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from streamer.names import stream_id
from streamer.refusals import BadInput, NotAttached, Refused
from streamer.serve.disk_threads import disk_thread
from streamer.streams.delivery import Sink

if TYPE_CHECKING:
    from streamer.serve.stream.connections import StreamConnections
    from streamer.streams.registry import Registry
    from streamer.streams.session import Session

__all__ = ["SpeechStream", "transcriber", "transcribers"]

OnEvents = Callable[[list[dict[str, Any]]], None]


class SpeechStream:
    """``on_events``: called on the event loop with the task's events (``partial``, ``final``, ``rewritten``) in order;
    ``on_over``: called if the stream ends early, for a protocol that waits for something else.

    All methods are for the event loop, except :meth:`push`, which any thread may call, one at a time. Every wait raises
    :class:`Refused` if the stream ends early: given up, or the daemon goes down. Opening may raise :class:`Refused`,
    too. With an ``id`` the stream is saved, and may be :meth:`resumed` by its id and ``owner``.
    """

    def __init__(
        self,
        streams: StreamConnections,
        on_events: OnEvents,
        *,
        model: str,
        sample_rate: int | None = None,
        options: Mapping[str, Any] | None = None,
        on_over: Callable[[Refused], None] = lambda why: None,
        id: str | None = None,
        owner: str = "",
    ) -> None:
        self._prepare(streams, on_events, on_over)
        self._opened(
            streams.registry.open(
                model=model,
                sink=self._sink,
                sample_rate=sample_rate,
                options=options,
                stream=stream_id(owner, id or uuid.uuid4().hex),
                lasting=id is not None,
            )
        )
        self.begin()

    def _prepare(self, streams: StreamConnections, on_events: OnEvents, on_over: Callable[[Refused], None]) -> None:
        self._streams, self._on_events, self._on_over = streams, on_events, on_over
        self._loop = asyncio.get_running_loop()
        self._freed = asyncio.Event()
        self._waiters: list[asyncio.Future[None]] = []
        self._early: list[list[dict[str, Any]]] | None = []
        self._error: Refused | None = None
        self._ended = self._closed = False
        self._after_seq = 0  # the client has all events up to this one; a restored stream repeats some of them
        self._sink: Sink = self._from_lane  # bound once: the session knows us by it

    def _opened(self, session: Session) -> None:
        self._session = session
        session.on_drained = partial(self._streams.outbox.put, self._wake)

    @classmethod
    async def resumed(
        cls,
        streams: StreamConnections,
        id: str,
        on_events: OnEvents,
        *,
        after_seq: int = 0,
        owner: str = "",
        on_over: Callable[[Refused], None] = lambda why: None,
    ) -> SpeechStream:
        """Resume the stream with this ``id``, awake or asleep; after :meth:`begin` its events after ``after_seq``
        come."""
        stream, id = cls.__new__(cls), stream_id(owner, id)
        stream._prepare(streams, on_events, on_over)
        stream._after_seq = after_seq
        registry, sink = streams.registry, stream._sink
        session = registry.reattach(id, sink, after_seq=after_seq)
        if session is None:
            waking = disk_thread(lambda: registry.attach(id, sink, after_seq=after_seq))
            try:
                session = await asyncio.shield(waking)
            except asyncio.CancelledError:  # the client is gone again
                waking.add_done_callback(partial(_let_go, registry, sink))
                raise
        stream._opened(session)
        return stream

    def begin(self) -> None:
        """Pass events to ``on_events`` from now on, first those that came before."""
        early, self._early = self._early or [], None
        for events in early:
            self._deliver(events)

    @property
    def model(self) -> str:
        return self._session.model

    @property
    def sample_rate(self) -> int:
        return self._session.sample_rate or 0

    @property
    def options(self) -> Mapping[str, Any]:
        return self._session.options

    @property
    def position(self) -> int:
        """Samples that were taken."""
        return self._session.received

    @property
    def seconds(self) -> float:
        """Sound that was taken."""
        return self._session.received / (self._session.sample_rate or 1)

    async def room(self) -> None:
        """Wait until the stream has room for more sound."""
        await self._until(lambda: not self._session.full)

    def push(self, pcm: bytes, *, decoded: bool = True) -> None:
        """Take PCM s16le mono of any length, once there is :meth:`room`. Not ``decoded``: the bytes come from a client,
        and are checked to be PCM. Raises :class:`BadInput`, or :class:`Overflow`."""
        try:
            if decoded:
                self._session.feed_rows(self._session.reader.of_bytes(pcm), self._sink)
            else:
                self._session.feed(pcm, self._sink)
        except NotAttached:
            raise self._gone() from None
        except BadInput:
            if self._session.state in ("closed", "ended"):
                raise self._gone() from None
            raise
        self._streams.received.inc(len(pcm))

    async def feed(self, pcm: bytes) -> None:
        """Take a client's PCM, once there is room."""
        await self.room()
        self.push(pcm, decoded=False)

    async def run(self) -> None:
        """Wait until every whole chunk that was taken is run, and its events are delivered."""
        done: list[bool] = []

        def ran() -> None:
            done.append(True)
            self._wake()

        self._session.when_run(lambda: self._streams.outbox.put(ran))
        await self._until(lambda: bool(done))

    async def end(self) -> None:
        """End the sound, and wait until the last final is delivered."""
        self._session.end(self._sink)
        await self._until(lambda: self._ended)

    def close(self) -> None:
        """Give up the stream, even while chunks are run. Never waits; no more events are delivered."""
        if not self._closed:
            self._closed = True
            self._session.on_drained = None
            self._streams.registry.release(self._session, partial(self._streams.outbox.put, self._freed.set))
            self._error = self._error or self._gone()
            self._wake()

    async def freed(self, seconds: float = 2.0) -> None:
        """After :meth:`close`: wait until the stream's slot is free, for ``seconds`` at most."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._freed.wait(), seconds)

    def leave(self) -> None:
        """The client is gone, and may come back: a stream with an ``id`` is kept for it. Never waits."""
        if not self._closed:
            self._closed = True
            self._streams.registry.detach(self._session, self._sink)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _from_lane(self, events: list[dict[str, Any]]) -> None:
        self._streams.outbox.put(partial(self._deliver, events))

    def _deliver(self, events: list[dict[str, Any]]) -> None:
        if self._closed:
            return
        if self._early is not None:
            self._early.append(events)
            return
        after = self._after_seq
        passed: list[dict[str, Any]] = []
        for event in events:
            kind = event["type"]
            if kind == "error":
                self._error = Refused(event["code"], event["message"], event.get("retry_after"))
            elif kind == "restart":
                self._error = Refused("draining", "the daemon is going down: try again in a moment", 1.0)
            elif kind == "end":
                self._ended = True
            elif kind in ("partial", "final", "rewritten") and event.get("seq", after + 1) > after:
                self._streams.sent(kind).inc()
                passed.append(event)
        if passed:
            self._on_events(passed)
        if self._error is not None:
            self._on_over(self._error)
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while True:
            if self._error is not None:
                raise self._error
            if self._streams.closed is not None:
                raise Refused(*self._streams.closed, 1.0)
            if reached():
                return
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _gone(self) -> Refused:
        return self._error or Refused("closed", "this stream is over: start another one")


def _let_go(registry: Registry, sink: Sink, woken: asyncio.Future[Session]) -> None:
    if not woken.cancelled() and woken.exception() is None:
        registry.detach(woken.result(), sink)


def transcribers(registry: Registry) -> list[dict[str, Any]]:
    """Descriptions of the transcribers that are served, the default first."""
    return [model for model in registry.models() if model["task"] == "transcribe"]


def transcriber(registry: Registry, name: str | None) -> str:
    """Check the name of a served transcriber; ``None`` stands for the first one. Raises :class:`Refused`."""
    known = [model["name"] for model in transcribers(registry)]
    if name is None and known:
        return str(known[0])
    if name is None or name not in known:
        there = ", ".join(known) or "none"
        raise Refused("unknown_model", f"no model {str(name)[:100]!r} that transcribes is served here: {there}")
    return name
