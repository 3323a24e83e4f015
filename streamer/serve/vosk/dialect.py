"""The dialect of Vosk's WebSocket server, without any I/O."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from streamer.faults import faults
from streamer.refusals import Refused
from streamer.serve.deltas import written_words
from streamer.serve.strict_json import strict_json

__all__ = ["VoskConfig", "VoskFormat", "parse_text", "wav_header"]

#: Vosk's word for everything that is not in a grammar.
UNKNOWN = "[unk]"


class VoskConfig(BaseModel):
    """The settings that a client may send before its sound; ``None``: not given. Other fields are ignored."""

    sample_rate: Annotated[float, Field(ge=1, le=768_000, allow_inf_nan=False)] | None = None
    words: bool | None = None
    max_alternatives: Annotated[int, Field(ge=0)] | None = None
    phrase_list: list[str] | None = None
    model: Annotated[str, Field(max_length=200)] | None = None

    def over(self, before: VoskConfig) -> VoskConfig:
        """These settings; those that are not given have their values from ``before``."""
        return before.model_copy(update=self.model_dump(exclude_none=True))

    @property
    def options(self) -> dict[str, Any]:
        """The options of a stream. A phrase list is not a grammar here: its phrases are expected, but others are heard,
        too."""
        phrases = [phrase for phrase in self.phrase_list or () if phrase.strip() and phrase != UNKNOWN]
        return {"hotwords": phrases} if phrases else {}


class VoskMessage(BaseModel):
    """A text message that configures the stream."""

    config: VoskConfig


def parse_text(data: bytes) -> VoskConfig | Literal["eof", "reset"]:
    """Parse a text message, with any spacing. Raises :class:`Refused`."""
    try:
        document = strict_json(data)
    except ValueError as error:
        raise Refused("bad_json", f"a text message is JSON, sound goes into binary ones: {error}") from None
    if isinstance(document, dict):
        if document.get("eof"):
            return "eof"
        if document.get("reset"):
            return "reset"
        if "config" in document:
            try:
                return VoskMessage.model_validate({"config": document["config"]}).config
            except ValidationError as error:
                raise Refused("bad_frame", faults(error, VoskMessage, "the message")) from None
    raise Refused("bad_frame", 'one of {"config": ...}, {"eof": 1} and {"reset": 1} is expected')


def wav_header(data: bytes) -> tuple[int, int] | None:
    """The offset of the samples and their rate in Hz, if the first message begins as a WAV: some of Vosk's clients send
    whole WAV files. Raises :class:`Refused` if they are not 16 bit, mono."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return None
    at, rate = 12, 0
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"fmt " and at + 24 <= len(data):
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", data, at + 8)
            if (kind, channels, bits) != (1, 1, 16):
                text = f"a WAV of {channels} channels and {bits} bits (format {kind}): 16-bit PCM, mono, is expected"
                raise Refused("not_pcm", text)
        if name == b"data" and rate:
            return at + 8, rate
        at += 8 + length + length % 2
    raise Refused("not_pcm", "a WAV whose header does not end in the first message: send raw PCM (16 bit, mono)")


@dataclass
class VoskFormat:
    """Makes one answer for each message from a stream's events. ``offset``: seconds of the streams before."""

    config: VoskConfig
    offset: float = 0.0
    _partial: str = ""
    _finals: list[Mapping[str, Any]] = field(default_factory=list)

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        for event in events:
            if event["type"] == "partial":
                self._partial = event["text"]
            elif event["type"] == "final":
                self._partial = ""
                if event["text"]:
                    self._finals.append(event)

    def answer(self, *, last: bool = False) -> bytes:
        """The answer to a message whose events were added: the ended utterances, joined to one; else the current
        partial. ``last``: no answer follows it."""
        if not self._finals and not last:
            return json.dumps({"partial": self._partial}, ensure_ascii=False).encode()
        finals, self._finals = self._finals, []
        return json.dumps(self._result(finals), ensure_ascii=False).encode()

    def _result(self, finals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        text = " ".join(final["text"] for final in finals)
        words, sure = [], 0.0
        for word in written_words(finals):
            start, end = (round(word[key] + self.offset, 3) for key in ("start", "end"))
            words.append({"conf": word["confidence"], "end": end, "start": start, "word": word["word"]})
            sure += math.log(max(word["confidence"], 1e-6))
        if not self.config.max_alternatives:
            return {"result": words, "text": text} if words and self.config.words is not False else {"text": text}
        found: dict[str, Any] = {"confidence": round(sure, 4), "text": text}
        if words and self.config.words is not False:
            found["result"] = [{key: word[key] for key in ("end", "start", "word")} for word in words]
        return {"alternatives": [found]}
