"""Settings of the speech protocols of other projects: a part of :class:`streamer.settings.Settings`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

__all__ = ["NO_SPEECH_LIMITS", "SpeechSettings"]

#: Numbers here that are not bounds.
NO_SPEECH_LIMITS = frozenset({"openai", "vosk_port", "vosk_sample_rate", "wyoming_port"})

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
PortNumber = Annotated[int, Field(ge=0, le=65535)]


class SpeechSettings(BaseSettings):
    """OpenAI, Vosk and Wyoming. Sizes in bytes, times in seconds, rates in Hz."""

    # -- OpenAI ------------------------------------------------------------------------------------------------------
    openai: bool = Field(True, description="OpenAI's transcription routes are served on port")
    openai_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe", "gpt-realtime-whisper"),
        description="model names of OpenAI's clients that stand for the first transcriber",
    )
    max_uploads: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="uploaded recordings that are transcribed at a time; one more is answered 503"
    )
    max_upload_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        25 * 2**20, description="largest uploaded recording; a larger one is answered 413"
    )
    max_upload_sound_seconds: Positive = Field(
        7200.0, description="sound of one uploaded recording; a longer one is answered 413"
    )
    upload_seconds: Positive = Field(600.0, description="time for one uploaded recording to be transcribed")

    # -- ports of their own ------------------------------------------------------------------------------------------
    vosk_port: PortNumber = Field(0, description="TCP port of Vosk's WebSocket protocol, mostly 2700; 0: none")
    vosk_sample_rate: Annotated[int, Field(ge=1, le=768_000)] = Field(
        8000, description="Hz of the sound of Vosk's clients that do not name a rate"
    )
    wyoming_port: PortNumber = Field(0, description="TCP port of Wyoming (Home Assistant), mostly 10300; 0: none")
    wyoming_languages: Annotated[tuple[str, ...], NoDecode] = Field(
        ("en",), description="languages of the models, as Wyoming's clients see them"
    )
    wyoming_zeroconf: str = Field(
        "",
        max_length=60,
        description="name under which wyoming_port is announced in the local network; empty: not announced",
    )
    max_protocol_connections: Count = Field(
        1024, description="connections of each of Vosk, Wyoming and OpenAI's realtime; one more is refused"
    )

    @field_validator("openai_aliases", "wyoming_languages", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
