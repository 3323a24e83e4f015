"""``/v1/realtime``: OpenAI's transcription over a WebSocket, and vLLM's flat dialect of it."""

from __future__ import annotations

import time
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from streamer.refusals import Refused
from streamer.render import dumped
from streamer.serve.body import in_thread
from streamer.serve.conversation import Conversation
from streamer.serve.deltas import finals_are_plain
from streamer.serve.openai.items import FlatItems, Items, ServerEvents, SessionItems, seq_of
from streamer.serve.openai.session import FLAT_RATE, ClientEvent, RealtimeProblem, SessionSettings, read_event
from streamer.serve.speech import SpeechStream, transcriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamer.serve.stream.connections import StreamConnections
    from streamer.serve.websocket import Socket

__all__ = ["REALTIME_PATH", "Realtime"]

REALTIME_PATH = "/v1/realtime"
#: Close codes of a client that has finished its session and will not resume it.
DONE = (1000, 1005)


class Realtime:
    """All connections. Lives on the event loop."""

    def __init__(self, streams: StreamConnections) -> None:
        self.streams = streams
        self.connections: set[RealtimeConversation] = set()
        streams.metrics.protocol_connections.labels("realtime").set_function(lambda: len(self.connections))

    def admit(self) -> Callable[[Socket], RealtimeConversation] | tuple[int, str]:
        """The factory of a connection's peer, or the HTTP status and text of a refusal, for
        :class:`streamer.serve.websocket.Socket`."""
        refusals, most = self.streams.metrics.refusals, self.streams.settings.max_protocol_connections
        if not self.streams.settings.openai:
            return 404, "OpenAI's routes are not served here (setting openai)\n"
        if closed := self.streams.closed:
            refusals.labels(closed[0]).inc()
            return 503, ": ".join(closed) + "\n"
        if len(self.connections) >= most:
            refusals.labels("connections").inc()
            return 503, f"all {most} connections are taken (max_protocol_connections): try again later\n"
        return lambda socket: RealtimeConversation(socket, self)

    def model(self, name: str | None) -> str:
        """Raises :class:`Refused`."""
        aliases = self.streams.settings.openai_aliases
        return transcriber(self.streams.registry, None if name in aliases else name)

    def close(self) -> None:
        for connection in list(self.connections):
            connection.socket.close(1012, "the daemon restarts: come back for the same session")


class RealtimeConversation(Conversation):
    """One connection. With turn detection a session is one stream, which may be resumed by the session's id until the
    client commits; without turn detection every item is a stream."""

    def __init__(self, socket: Socket, realtime: Realtime) -> None:
        super().__init__(socket, realtime.streams)
        self._realtime = realtime
        realtime.connections.add(self)
        self._id = f"sess_{uuid.uuid4().hex}"
        self._settings = SessionSettings()
        self._events = ServerEvents()
        self._flat = False
        self._stream: SpeechStream | None = None
        self._items: Items | None = None
        self._begun = 0  # streams
        self._offset = 0.0  # seconds of the streams that are over
        self._previous: str | None = None  # the last item
        self._closed_by: int | None = None

    async def talk(self) -> None:
        try:
            await self._greet()
            while True:
                data, text = await self.next()
                event: ClientEvent | None = None
                try:
                    if not text:
                        raise RealtimeProblem("invalid_json", "messages are text: sound is base64 in one")
                    event = found = await in_thread(partial(self._read, data), len(data))
                    await self._act(found)
                except RecursionError:
                    self._send([self._error(RealtimeProblem("invalid_value", "nested too deep"), None)])
                except RealtimeProblem as problem:
                    self._send([self._error(problem, event)])
        finally:
            if self._stream is not None and (self._closed_by in DONE or not self._resumable):
                self._stream.close()
            elif self._stream is not None:
                self._stream.leave()

    def _read(self, data: bytes) -> ClientEvent:
        """Parse a message. Only sound may be long: the other fields are sent back to the client."""
        most = self.streams.settings.max_control_bytes
        sound = b'"input_audio_buffer.append"'
        if len(data) <= most or sound in data[:200] + data[-200:]:
            event = read_event(data)
            if len(data) <= most or event.type == "input_audio_buffer.append":
                return event
        raise RealtimeProblem("too_long", f"a message of {len(data)} bytes, the limit is {most} (max_control_bytes)")

    def explain(self, why: Refused) -> list[bytes]:
        return [_frame(self._error(RealtimeProblem(why.reason, why.message), None))]

    def on_closed(self, code: int) -> None:
        self._closed_by = code
        self._realtime.connections.discard(self)
        super().on_closed(code)

    # -- the session -------------------------------------------------------------------------------------------------

    async def _greet(self) -> None:
        """A new session, or one that goes on: ``?session=ID&after=EVENT_ID``."""
        query = {name: values[-1] for name, values in parse_qs(self.socket.target.partition("?")[2]).items()}
        session = query.get("session")
        if session is not None:
            await self._resume(session, query.get("after"))
        elif (named := query.get("model")) in (m["name"] for m in self.streams.registry.models()):
            self._settings = self._settings.updated({"audio": {"input": {"transcription": {"model": named}}}})
        created = {"id": self._id, "created": int(time.time())}  # what vLLM's clients look for
        self._send([self._events.make("session.created", session=self._described(), **created)])
        if self._stream is not None:
            self._stream.begin()

    async def _resume(self, session: str, after: str | None) -> None:
        seq = 0 if after is None else seq_of(after)
        if seq is None:
            raise Refused("bad_frame", f"after is the id of an event of this session, not {str(after)[:60]!r}")
        self.socket.grant.own(session)  # refuses a name that contains an owner
        self._stream = stream = await SpeechStream.resumed(
            self.streams, session, self._on_events, after_seq=seq, owner=self.socket.grant.owner, on_over=self.stop
        )
        self._id, self._begun = session, 1
        self._settings = self._settings.updated(
            {"audio": {"input": {"format": {"rate": stream.sample_rate}, "transcription": {"model": stream.model}}}}
        )
        self._items = self._new_items(seq)

    def _described(self) -> dict[str, Any]:
        found = {"id": self._id, "object": "realtime.transcription_session", "expires_at": 0}
        resumable = self._resumable or (self._begun == 0 and self._settings.input.turn_detection is not None)
        position = 0 if self._stream is None else self._stream.position
        own = {"resumable": resumable, "resumed": self._stream is not None, "position": position}
        return found | self._settings.to_dict() | {"streamer": own}

    @property
    def _resumable(self) -> bool:
        """Whether the open stream is the whole session."""
        return self._begun == 1 and self._settings.input.turn_detection is not None and not self._flat

    # -- events in ---------------------------------------------------------------------------------------------------

    async def _act(self, event: ClientEvent) -> None:
        if event.type == "session.update":
            self._update(event)
        elif event.type == "input_audio_buffer.append":
            await self._append(event)
        elif event.type == "input_audio_buffer.commit":
            await self._commit(event)
        elif event.type == "input_audio_buffer.clear":
            self._over()
            self._send([self._events.make("input_audio_buffer.cleared")])
        else:
            known = "session.update and input_audio_buffer.append, commit and clear are"
            raise RealtimeProblem("unknown_event", f"there is no event {event.type!r} here: {known}", "type")

    def _update(self, event: ClientEvent) -> None:
        if event.session is None and event.model is None:
            raise RealtimeProblem("missing_value", "session.update has a session", "session")
        flat = event.session is None
        given = event.session
        if given is None:
            audio = {"format": {"type": "audio/pcm", "rate": FLAT_RATE}, "transcription": {"model": event.model}}
            given = {"audio": {"input": audio | {"turn_detection": None}}}
        if self._stream is None:
            self._flat = flat  # errors have the client's dialect from here on
        wanted = self._settings.updated(given)
        try:
            model = self._realtime.model(wanted.model)
        except Refused as error:
            param = "session.audio.input.transcription.model"
            raise RealtimeProblem("model_not_found", error.message, param) from error
        if self._stream is not None and (flat != self._flat or not self._fits(wanted, model)):
            text = "sound has come already: format, model, turn detection and options can't change before a commit"
            raise RealtimeProblem("session_in_use", text, "session")
        self._settings, self._flat = wanted, flat
        if not flat:
            self._send([self._events.make("session.updated", session=self._described())])

    def _fits(self, wanted: SessionSettings, model: str) -> bool:
        """Whether the open stream fits these settings. A client that resumes one names its options again, or none."""
        assert self._stream is not None
        now, then = self._settings.input, wanted.input
        same_turns = (now.turn_detection is None) == (then.turn_detection is None)
        same_sound = then.format.sample_rate == self._stream.sample_rate and model == self._stream.model
        return same_turns and same_sound and self._same_options(wanted)

    def _same_options(self, wanted: SessionSettings) -> bool:
        assert self._stream is not None
        return all(self._stream.options.get(name) == value for name, value in wanted.options.items())

    async def _append(self, event: ClientEvent) -> None:
        if event.audio is None:
            raise RealtimeProblem("missing_value", "input_audio_buffer.append has audio, in base64", "audio")
        form, audio = self._settings.input.format, event.audio
        pcm = await in_thread(lambda: form.decode(audio), len(audio))
        if not pcm:
            return
        if self._stream is None:
            self._begin()
        assert self._stream is not None
        await self._stream.feed(pcm)

    async def _commit(self, event: ClientEvent) -> None:
        if self._flat and not event.final:
            return  # vLLM's clients commit before their sound
        if self._stream is None:
            if self._flat:
                self._send(FlatItems(False).finish(0))
                return
            raise RealtimeProblem("input_audio_buffer_commit_empty", "no sound has come since the last commit")
        assert self._items is not None
        self._send(self._items.commit())
        await self._stream.end()
        self._send(self._items.finish(self._stream.seconds))
        self._over()

    def _begin(self) -> None:
        settings, resumable = self._settings, self._begun == 0 and self._settings.input.turn_detection is not None
        self._stream = SpeechStream(
            self.streams,
            self._on_events,
            model=self._realtime.model(settings.model),
            sample_rate=settings.input.format.sample_rate,
            options=settings.options,
            on_over=self.stop,
            id=self._id if resumable and not self._flat else None,
            owner=self.socket.grant.owner,
        )
        self._begun += 1
        self._items = self._new_items(0)

    def _new_items(self, seq: int) -> Items:
        assert self._stream is not None
        early = finals_are_plain(self.streams.settings, self._stream.options)
        if self._flat:
            return FlatItems(early)
        name = self._id[-12:] if self._begun <= 1 else f"{self._id[-12:]}.{self._begun}"
        turns = self._settings.input.turn_detection is not None
        wanted = self._settings.include or ()
        return SessionItems(
            self._events,
            name,
            turns=turns,
            early=early,
            logprobs="item.input_audio_transcription.logprobs" in wanted,
            offset=self._offset,
            previous=self._previous,
            seq=seq,
        )

    def _over(self) -> None:
        """End the open stream; the next sound begins another."""
        if self._stream is not None:
            self._offset += self._stream.seconds
            self._stream.close()
        if isinstance(self._items, SessionItems):
            self._previous = self._items.previous
        self._stream = self._items = None

    # -- events out --------------------------------------------------------------------------------------------------

    def _on_events(self, events: list[dict[str, Any]]) -> None:
        """Send a stream's events. They need no bound of their own: no sound is read while the client does not read."""
        assert self._items is not None
        self._send(sent for event in events if event["type"] != "rewritten" for sent in self._items.add(event))

    def _send(self, events: Iterable[dict[str, Any]]) -> None:
        self.socket.send([_frame(event) for event in events])

    def _error(self, problem: RealtimeProblem, event: ClientEvent | None) -> dict[str, Any]:
        if self._flat:
            return {"type": "error", "error": str(problem), "code": problem.code}
        facts: dict[str, Any] = {"type": "invalid_request_error", "code": problem.code, "message": str(problem)}
        facts |= {"param": problem.param, "event_id": None if event is None else event.event_id}
        return self._events.make("error", error=facts)


def _frame(event: dict[str, Any]) -> bytes:
    return dumped(event).encode()
