"""Wyoming over TCP, as Home Assistant speaks it: an utterance in, its text out, while it grows and as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from streamer.refusals import Refused
from streamer.serve.conversation import reason_of
from streamer.serve.deltas import Deltas, finals_are_plain
from streamer.serve.ports import ProtocolPort
from streamer.serve.speech import SpeechStream, transcriber, transcribers
from streamer.serve.wyoming.announce import Announcement
from streamer.serve.wyoming.events import MAX_HEADER, WyomingEvent, encode_event, parse_data, parse_header
from streamer.serve.wyoming.utterance import SoundFormat, WyomingWish, checked, info, mono

if TYPE_CHECKING:
    from streamer.serve.access.gate import Access
    from streamer.serve.stream.connections import StreamConnections

__all__ = ["WyomingServer"]

log = logging.getLogger(__name__)

#: Events that can't be answered while models are loaded, or the daemon goes down.
WORK = frozenset({"describe", "audio-start", "audio-chunk", "audio-stop"})


class WyomingServer:
    """Lives on the event loop."""

    def __init__(self, streams: StreamConnections, access: Access) -> None:
        self._streams, self._access, settings = streams, access, streams.settings
        self._tasks: set[asyncio.Task[None]] = set()
        self._port = ProtocolPort(settings, streams.metrics, "wyoming", settings.wyoming_port)
        self._announcement = Announcement(settings)

    async def start(self) -> None:
        """Raises :class:`AddressTakenError`, or :class:`MissingExtraError`."""
        self._announcement.check()
        await self._port.start(self._connection, lambda: len(self._tasks))

    async def announce(self) -> None:
        """In the local network, if that is wanted; what fails there is logged."""
        await self._announcement.start()

    def stop_listening(self) -> None:
        self._port.stop_listening()

    async def close(self) -> None:
        """Who is connected has been told by its stream."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._announcement.stop()

    def _connection(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(MAX_HEADER), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        closed = self._access.required and not self._streams.settings.insecure
        connection = WyomingConnection(reader, writer, self._streams, closed=closed)
        task = asyncio.get_running_loop().create_task(connection.live())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class WyomingConnection:
    """One connection: one utterance after the other. ``closed``: a token is asked for, which the protocol has no place
    for."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        streams: StreamConnections,
        *,
        closed: bool = False,
    ) -> None:
        self._reader, self._writer, self._streams, self._settings = reader, writer, streams, streams.settings
        self._closed = closed
        self._wish = WyomingWish()
        self._form: SoundFormat | None = None
        self._stream: SpeechStream | None = None
        self._deltas = Deltas(False)
        self._finals: list[str] = []
        self._waiting: asyncio.Timeout | None = None
        self._why: Refused | None = None

    async def live(self) -> None:
        try:
            await self._talk()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # it left
        except Exception as error:
            why = reason_of(error)
            self._streams.metrics.bad_input.labels(why.reason).inc()
            log.info("client refused", extra={"code": why.reason, "detail": why.message})
            self._say("error", {"text": why.message, "code": why.reason})
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                await self._linger()
        finally:
            self._done()
            await self._close()

    # -- events in ---------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        if self._closed:
            text = "this daemon asks for tokens, and Wyoming has none: insecure = true opens this port all the same"
            raise Refused("token", text)
        patience = self._settings.handshake_seconds
        while (event := await self._next(patience)) is not None:
            await self._act(event)
            try:
                async with asyncio.timeout(self._settings.send_seconds):
                    await self._writer.drain()
            except TimeoutError:
                text = f"nothing was read for {self._settings.send_seconds:g} s (send_seconds)"
                raise Refused("not_reading", text) from None
            patience = self._settings.idle_seconds

    async def _next(self, patience: float) -> WyomingEvent | None:
        """``None``: the client has no more. Raises :class:`Refused`, also once the stream that is open has failed."""
        try:
            async with asyncio.timeout(patience or None) as self._waiting:
                if self._why is not None:
                    raise self._why
                line = await self._reader.readuntil(b"\n")
                header = parse_header(line, self._settings.max_frame_bytes)
                data = await self._reader.readexactly(header.data_length)
                payload = await self._reader.readexactly(header.payload_length)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None
        except asyncio.LimitOverrunError:
            raise Refused("too_long", f"a header of more than {MAX_HEADER} bytes") from None
        except TimeoutError:
            raise self._why or Refused("idle_timeout", f"no event came for {patience:g} s") from None
        return parse_data(header, data, payload)

    async def _act(self, event: WyomingEvent) -> None:
        """Events of other services are read over, as the protocol wants it."""
        if event.type in WORK and (closed := self._streams.closed):
            raise Refused(*closed, 1.0)
        if event.type == "describe":
            self._say("info", info(transcribers(self._streams.registry), self._settings.wyoming_languages))
        elif event.type == "ping":
            self._say("pong", {"text": event.data.get("text")})
        elif event.type == "transcribe":
            self._wish = checked(WyomingWish, event)
        elif event.type == "audio-start":
            self._done()
            self._begin(checked(SoundFormat, event))
        elif event.type == "audio-chunk":
            form = checked(SoundFormat, event)
            if self._stream is None or form != self._form:
                self._go_on_as(form)
            assert self._stream is not None
            await self._stream.feed(mono(event.payload, form))
        elif event.type == "audio-stop":
            await self._end()

    def _go_on_as(self, form: SoundFormat) -> None:
        """Without an audio-start the first chunk is one."""
        if self._stream is not None:
            raise Refused("bad_audio", f"the sound was {self._form}, and goes on as {form}: send audio-start")
        self._begin(form)

    def _begin(self, form: SoundFormat) -> None:
        self._form, self._finals = form, []
        hints = self._wish.hints
        try:
            self._open(form, {"hotwords": hints} if hints else {})
        except Refused as error:
            if not hints or error.reason != "options":
                raise
            log.info("hints are left aside", extra={"code": error.reason, "detail": error.message})
            self._open(form, {})
        self._say("transcript-start", self._language())

    def _open(self, form: SoundFormat, options: dict[str, Any]) -> None:
        self._deltas = Deltas(finals_are_plain(self._settings, options))
        self._stream = SpeechStream(
            self._streams,
            self._told,
            model=transcriber(self._streams.registry, self._wish.name),
            sample_rate=form.rate,
            options=options,
            on_over=self._failed,
        )

    async def _end(self) -> None:
        if self._stream is None:
            self._say("transcript-start", self._language())
        else:
            await self._stream.end()
        self._say("transcript", {"text": " ".join(self._finals), **self._language()})
        self._say("transcript-stop")
        self._done()

    def _failed(self, why: Refused) -> None:
        """Whoever waits for the next event waits no longer."""
        self._why = why
        if self._waiting is not None and not self._waiting.expired():
            with contextlib.suppress(RuntimeError):  # it waits for something else, and is told there
                self._waiting.reschedule(0)

    def _done(self) -> None:
        stream, self._stream, self._form, self._finals = self._stream, None, None, []
        if stream is not None:
            stream.close()

    # -- events out --------------------------------------------------------------------------------------------------

    def _told(self, events: list[dict[str, Any]]) -> None:
        """What has been read of the sound bounds what waits here: no more is read until it is on its way."""
        for event in events:
            if event["type"] == "final" and event["text"]:
                self._finals.append(event["text"])
            if delta := self._deltas.of(event):
                self._say("transcript-chunk", {"text": delta})

    def _say(self, kind: str, data: dict[str, Any] | None = None) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode_event(kind, data))

    def _language(self) -> dict[str, Any]:
        """As it was asked for."""
        return {} if self._wish.language is None else {"language": self._wish.language}

    async def _close(self) -> None:
        """What is still to be said is sent, but not for ever: whoever does not read is cut off."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._settings.linger_seconds):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def _linger(self) -> None:
        """Read what still comes, or closing would send a reset that overtakes the reason."""
        self._writer.write_eof()
        async with asyncio.timeout(self._settings.linger_seconds):
            while await self._reader.read(65536):
                pass
