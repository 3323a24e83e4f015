"""Checks the fields of Wyoming's requests, and makes its answers. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer import __version__
from streamer.faults import faults
from streamer.refusals import Refused
from streamer.serve.wyoming.events import WyomingEvent

__all__ = ["SoundFormat", "WyomingWish", "checked", "info", "mono"]

M = TypeVar("M", bound=BaseModel)


class WyomingWish(BaseModel):
    """``name``: of the model. Names and terms are hints: a model that can't use them ignores them."""

    model_config = ConfigDict(frozen=True)

    name: str | None = Field(None, max_length=200)
    language: str | None = Field(None, max_length=60)
    transcript_names: list[str] | None = None
    transcript_terms: list[str] | None = None

    @property
    def hints(self) -> list[str]:
        return list(dict.fromkeys([*(self.transcript_names or ()), *(self.transcript_terms or ())]))


class SoundFormat(BaseModel):
    """A format of PCM: ``rate`` in Hz, ``width`` of a sample in bytes, ``channels``, interleaved."""

    model_config = ConfigDict(frozen=True)

    rate: Annotated[int, Field(ge=1, le=768_000)]
    width: int
    channels: Annotated[int, Field(ge=1, le=64)]


def checked(kind: type[M], event: WyomingEvent) -> M:
    """The event's data as ``kind``. Raises :class:`Refused`."""
    try:
        return kind.model_validate(event.data)
    except ValidationError as error:
        raise Refused("bad_frame", f"{event.type[:60]}: {faults(error, kind, 'data')}") from None


def mono(data: bytes, form: SoundFormat) -> bytes:
    """Mix PCM down to one channel of s16le, the mean of all. Raises :class:`Refused`."""
    if form.width != 2:
        raise Refused("bad_audio", f"samples of {form.width} bytes: 2 are expected (width)")
    if len(data) % (2 * form.channels):
        raise Refused("bad_audio", f"{len(data)} bytes are no whole samples of {form.channels} channels")
    if form.channels == 1:
        return data
    samples = np.frombuffer(data, "<i2").reshape(-1, form.channels)
    return bytes(np.rint(samples.mean(axis=1)).astype("<i2").tobytes())


def info(models: Iterable[dict[str, Any]], languages: Sequence[str]) -> dict[str, Any]:
    """The answer to ``describe``. Models don't name their languages: a setting does."""
    whose = {"attribution": {"name": "streamer", "url": ""}, "installed": True}
    known = [
        {
            "name": model["name"],
            "description": f"{model['name']} {model['version']}",
            "version": str(model["version"]),
            "languages": list(languages),
            **whose,
        }
        for model in models
    ]
    program = {
        "name": "streamer",
        "description": "Streaming speech recognition",
        "version": __version__,
        "models": known,
        "supports_transcript_streaming": True,
        "requires_external_vad": True,  # audio-start and audio-stop delimit an utterance
        **whose,
    }
    empty: dict[str, Any] = {name: [] for name in ("tts", "handle", "intent", "wake", "mic", "snd")}
    return {"asr": [program], **empty}
