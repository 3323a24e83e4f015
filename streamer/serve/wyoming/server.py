"""Wyoming over TCP, as Home Assistant uses it: an utterance in, its growing text and its whole text out."""

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
        """Announce the port in the local network, if the settings say so; a failure is logged."""
        await self._announcement.start()

    def stop_listening(self) -> None:
        self._port.stop_listening()

    async def close(self) -> None:
        """End all connections; their streams have sent the reason already."""
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
    """One connection: one utterance after the other. ``closed``: the daemon needs a token, which the protocol can't
    carry."""

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
            self._send("error", {"text": why.message, "code": why.reason})
            with contextlib.suppress(OSError, RuntimeError, TimeoutError):
                await self._linger()
        finally:
            self._done()
            await self._close()

    # -- events in ---------------------------------------------------------------------------------------------------

    async def _talk(self) -> None:
        if self._closed:
            text = "this daemon needs tokens, which Wyoming can't carry: insecure = true opens this port all the same"
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
        """The next event; ``None``: the client has closed. Raises :class:`Refused`, also once the open stream has
        failed."""
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
        """Handle an event; those of other services are ignored, as the protocol demands."""
        if event.type in WORK and (closed := self._streams.closed):
            raise Refused(*closed, 1.0)
        if event.type == "describe":
            self._send("info", info(transcribers(self._streams.registry), self._settings.wyoming_languages))
        elif event.type == "ping":
            self._send("pong", {"text": event.data.get("text")})
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
        """Check a chunk's format; the first chunk begins an utterance if there was no audio-start."""
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
            log.info("hints are ignored", extra={"code": error.reason, "detail": error.message})
            self._open(form, {})
        self._send("transcript-start", self._language())

    def _open(self, form: SoundFormat, options: dict[str, Any]) -> None:
        self._deltas = Deltas(finals_are_plain(self._settings, options))
        self._stream = SpeechStream(
            self._streams,
            self._on_events,
            model=transcriber(self._streams.registry, self._wish.name),
            sample_rate=form.rate,
            options=options,
            on_over=self._failed,
        )

    async def _end(self) -> None:
        if self._stream is None:
            self._send("transcript-start", self._language())
        else:
            await self._stream.end()
        self._send("transcript", {"text": " ".join(self._finals), **self._language()})
        self._send("transcript-stop")
        self._done()

    def _failed(self, why: Refused) -> None:
        """The stream has failed: end the wait for the next event."""
        self._why = why
        if self._waiting is not None and not self._waiting.expired():
            with contextlib.suppress(RuntimeError):  # the connection waits for something else, which raises the reason
                self._waiting.reschedule(0)

    def _done(self) -> None:
        stream, self._stream, self._form, self._finals = self._stream, None, None, []
        if stream is not None:
            stream.close()

    # -- events out --------------------------------------------------------------------------------------------------

    def _on_events(self, events: list[dict[str, Any]]) -> None:
        """Send the text of events. They need no bound of their own: no sound is read until they are sent."""
        for event in events:
            if event["type"] == "final" and event["text"]:
                self._finals.append(event["text"])
            if delta := self._deltas.of(event):
                self._send("transcript-chunk", {"text": delta})

    def _send(self, kind: str, data: dict[str, Any] | None = None) -> None:
        if not self._writer.is_closing():
            self._writer.write(encode_event(kind, data))

    def _language(self) -> dict[str, Any]:
        """The language field, as the client gave it."""
        return {} if self._wish.language is None else {"language": self._wish.language}

    async def _close(self) -> None:
        """Send what is left and close. A client that does not read within ``linger_seconds`` is cut off."""
        self._writer.close()
        try:
            async with asyncio.timeout(self._settings.linger_seconds):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()

    async def _linger(self) -> None:
        """Read on until the client closes: else closing would send a reset that overtakes the reason."""
        self._writer.write_eof()
        async with asyncio.timeout(self._settings.linger_seconds):
            while await self._reader.read(65536):
                pass
