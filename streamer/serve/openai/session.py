"""OpenAI's realtime transcription: checks clients' messages, and keeps a session's settings. No I/O."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.faults import fault
from streamer.serve.openai.g711 import alaw_to_pcm, ulaw_to_pcm
from streamer.serve.strict_json import strict_json

__all__ = ["ClientEvent", "RealtimeProblem", "SessionSettings", "read_event"]

#: Hz: OpenAI's own rate of PCM, and that of vLLM's dialect.
PCM_RATE, FLAT_RATE = 24000, 16000
G711_RATE = 8000


class RealtimeProblem(Exception):  # noqa: N818
    """An error that is sent to the client; the session goes on. ``param``: the faulty field."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class _Kept(BaseModel):
    """Fields without an effect here are kept, and sent back."""

    model_config = ConfigDict(frozen=True, extra="allow")


class AudioFormat(_Kept):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Annotated[int, Field(ge=1, le=768_000)] | None = None

    @property
    def sample_rate(self) -> int:
        return (self.rate or PCM_RATE) if self.type == "audio/pcm" else G711_RATE

    def decode(self, audio: str) -> bytes:
        """Base64 to PCM s16le. Raises :class:`RealtimeProblem`."""
        try:
            data = base64.b64decode(audio, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RealtimeProblem("invalid_value", f"audio is not base64: {error}", "audio") from None
        if self.type == "audio/pcm":
            if len(data) % 2:
                raise RealtimeProblem("invalid_value", f"{len(data)} bytes are no whole 16-bit samples", "audio")
            return data
        return ulaw_to_pcm(data) if self.type == "audio/pcmu" else alaw_to_pcm(data)


class TranscriptionSettings(_Kept):
    """``keywords`` are hotwords; ``text`` and ``numbers`` are options of a stream."""

    model: Annotated[str, Field(max_length=200)] | None = None
    keywords: list[str] | None = None
    text: Literal["spoken", "written"] | None = None
    numbers: Literal["spoken", "written"] | None = None


class TurnDetection(_Kept):
    type: Literal["server_vad", "semantic_vad"] = "server_vad"
    silence_duration_ms: Annotated[int, Field(ge=10, le=60_000)] | None = None


class AudioInput(_Kept):
    format: AudioFormat = AudioFormat()
    noise_reduction: dict[str, Any] | None = None
    transcription: TranscriptionSettings | None = TranscriptionSettings()
    turn_detection: TurnDetection | None = TurnDetection()


class SessionAudio(_Kept):
    input: AudioInput = AudioInput()


class SessionSettings(_Kept):
    """The settings of a session. Without ``turn_detection`` the client commits."""

    type: Literal["transcription"] = "transcription"
    audio: SessionAudio = SessionAudio()
    include: list[str] | None = None

    @property
    def input(self) -> AudioInput:
        return self.audio.input

    @property
    def model(self) -> str | None:
        return None if self.input.transcription is None else self.input.transcription.model

    @property
    def options(self) -> dict[str, Any]:
        """The options of a stream. The silence after speech (``endpoint``) is only in them if the client asks for
        it."""
        wish, turns = self.input.transcription or TranscriptionSettings(), self.input.turn_detection
        given: dict[str, Any] = {"hotwords": wish.keywords or None, "text": wish.text, "numbers": wish.numbers}
        if turns is not None and turns.silence_duration_ms is not None:
            given["endpoint"] = {"trailing": turns.silence_duration_ms / 1000}
        return {name: value for name, value in given.items() if value is not None}

    def updated(self, given: dict[str, Any]) -> SessionSettings:
        """The settings with the ``given`` ones changed; all others stay. Raises :class:`RealtimeProblem`."""
        if given.get("type", "transcription") != "transcription":
            text = f"a session of the type {str(given['type'])[:60]!r}: only transcription is served here"
            raise RealtimeProblem("invalid_value", text, "session.type")
        try:
            return SessionSettings.model_validate(_merged(self.model_dump(), given))
        except ValidationError as error:
            first = error.errors()[0]
            param = ".".join(("session", *map(str, first["loc"])))
            text = fault(first, SessionSettings, first["loc"], "session")
            raise RealtimeProblem("invalid_value", text, param) from None

    def to_dict(self) -> dict[str, Any]:
        found = self.model_dump()
        given = found["audio"]["input"]
        given["format"]["rate"] = self.input.format.sample_rate
        for name in ("transcription", "turn_detection"):
            if given[name] is not None:
                given[name] = {key: value for key, value in given[name].items() if value is not None}
        return found


class ClientEvent(BaseModel):
    """A client's message. ``session``: OpenAI's dialect; ``model`` beside the type, and ``final``: vLLM's flat
    dialect."""

    type: Annotated[str, Field(max_length=100)]
    event_id: Annotated[str, Field(max_length=512)] | None = None
    session: dict[str, Any] | None = None
    model: Annotated[str, Field(max_length=200)] | None = None
    audio: str | None = None
    final: bool = False


def read_event(data: bytes) -> ClientEvent:
    """Raises :class:`RealtimeProblem`."""
    try:
        return ClientEvent.model_validate(strict_json(data))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the event"
        text = fault(first, ClientEvent, first["loc"], "the event")
        raise RealtimeProblem("invalid_value", text, name) from None
    except ValueError as error:
        raise RealtimeProblem("invalid_json", f"a message is JSON, sound in it is base64: {error}") from None


def _merged(before: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Merge objects field by field; other values are replaced."""
    found = dict(before)
    for name, value in given.items():
        here = found.get(name)
        if isinstance(value, dict) and isinstance(here, dict) and value.get("type") in (None, here.get("type")):
            found[name] = _merged(here, value)
        else:
            found[name] = value
    return found
