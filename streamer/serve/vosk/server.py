"""Vosk's WebSocket server on a port of its own: every message of sound gets one answer, once the sound is run."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from streamer.refusals import Refused
from streamer.serve.conversation import Conversation
from streamer.serve.ports import ProtocolPort
from streamer.serve.speech import SpeechStream, transcriber
from streamer.serve.vosk.dialect import VoskConfig, VoskFormat, parse_text, wav_header
from streamer.serve.websocket import Socket

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamer.serve.access.gate import Access
    from streamer.serve.handshakes import Handshakes
    from streamer.serve.stream.connections import StreamConnections
    from streamer.serve.turns import Turns

__all__ = ["VoskServer"]

#: Its clients need the scope of this path.
STREAM_PATH = "/v1/stream"


class VoskServer:
    """Lives on the event loop."""

    def __init__(self, streams: StreamConnections, access: Access, turns: Turns, handshakes: Handshakes) -> None:
        self._streams, settings = streams, streams.settings
        self.connections: set[Socket] = set()  # sockets add themselves, as they do at uvicorn
        self._port = ProtocolPort(settings, streams.metrics, "vosk", settings.vosk_port)
        self._make = partial(
            Socket,
            config=None,
            server_state=self,
            app_state={},
            access=access,
            admit=self._admit,
            turns=turns,
            handshakes=handshakes,
            route=STREAM_PATH,
            max_frame_bytes=settings.max_frame_bytes,
            ping_seconds=settings.ping_seconds,
            send_seconds=settings.send_seconds,
            linger_seconds=settings.linger_seconds,
            handshake_seconds=settings.handshake_seconds,
        )

    async def start(self) -> None:
        """Raises :class:`AddressTakenError`."""
        await self._port.start(self._make, lambda: len(self.connections))

    def stop_listening(self) -> None:
        self._port.stop_listening()

    def close(self) -> None:
        for socket in list(self.connections):
            socket.close(1012, "the daemon restarts")

    def _admit(self, path: str) -> Callable[[Socket], VoskConversation] | tuple[int, str]:
        """The factory of a connection's peer, or the refusal. Every path is accepted: clients use any."""
        if closed := self._streams.closed:
            self._streams.metrics.refusals.labels(closed[0]).inc()
            return 503, ": ".join(closed) + "\n"
        return lambda socket: VoskConversation(socket, self._streams)


class VoskConversation(Conversation):
    """One connection: one stream after the other, a reset between two."""

    async def talk(self) -> None:
        dialect = VoskFormat(VoskConfig())
        stream: SpeechStream | None = None
        try:
            while True:
                data, text = await self.next()
                order = self._order(data) if text else None
                if isinstance(order, VoskConfig):
                    dialect.config = order.over(dialect.config)
                    continue
                if order is None:
                    if stream is None:
                        header = wav_header(data)
                        stream = self._open(dialect, header)
                        data = data[header[0] :] if header else data
                    await stream.feed(data)
                    await stream.run()
                elif stream is not None:
                    await stream.end()
                self.socket.send([dialect.answer(last=order is not None)])
                if order == "eof":
                    return
                if order == "reset" and stream is not None:
                    dialect.offset += stream.seconds
                    stream.close()
                    stream = None
        finally:
            if stream is not None:
                stream.close()

    def _order(self, data: bytes) -> VoskConfig | str:
        most = self.streams.settings.max_control_bytes
        if len(data) > most:
            raise Refused("too_long", f"a text of {len(data)} bytes, the limit is {most} (max_control_bytes)")
        return parse_text(data)

    def _open(self, dialect: VoskFormat, header: tuple[int, int] | None) -> SpeechStream:
        """Open a stream at the client's rate, else at the WAV's own."""
        config = dialect.config
        usual = header[1] if header else self.streams.settings.vosk_sample_rate
        return SpeechStream(
            self.streams,
            dialect.add,
            model=transcriber(self.streams.registry, config.model),
            sample_rate=round(config.sample_rate or usual),
            options=config.options,
            owner=self.socket.grant.owner,
            on_over=self.stop,
        )
