"""OpenAI's answers, made from finals. Pure functions of events."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from streamer import render
from streamer.serve.deltas import written_words

__all__ = ["answer_body", "full_text", "server_event", "usage"]

Event = Mapping[str, Any]

MEDIA = {"text": "text/plain; charset=utf-8", "srt": "text/plain; charset=utf-8", "vtt": "text/plain; charset=utf-8"}


def answer_body(
    finals: Sequence[Event], seconds: float, form: str, granularities: Sequence[str] = (), language: str = ""
) -> tuple[bytes, str]:
    """The body of a whole answer and its media type. ``seconds`` of sound; ``form`` as ``response_format``;
    ``language`` as the client gave it, since models don't name theirs."""
    if form == "text":
        text = full_text(finals) + "\n"
    elif form == "srt":
        text = render.srt(finals)
    elif form == "vtt":
        text = render.vtt(finals)
    else:
        document = {"text": full_text(finals), "usage": usage(seconds)}
        if form == "verbose_json":
            document = _verbose(finals, seconds, granularities) | {"language": language or "unknown"} | document
        text = json.dumps(document, ensure_ascii=False)
    return text.encode(), MEDIA.get(form, "application/json")


def full_text(finals: Sequence[Event]) -> str:
    return " ".join(final["text"] for final in finals if final["text"])


def usage(seconds: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(seconds)}


def server_event(event: Event) -> bytes:
    """One server-sent event (``text/event-stream``)."""
    return f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def _verbose(finals: Sequence[Event], seconds: float, granularities: Sequence[str]) -> dict[str, Any]:
    spoken = [final for final in finals if final["text"]]
    document: dict[str, Any] = {"task": "transcribe", "duration": round(seconds, 3)}
    if "segment" in granularities:
        document["segments"] = [_segment(number, final) for number, final in enumerate(spoken)]
    if "word" in granularities:
        words = written_words(spoken)
        document["words"] = [{key: word[key] for key in ("word", "start", "end")} for word in words]
    return document


def _segment(number: int, final: Event) -> dict[str, Any]:
    """The segment of an utterance. ``avg_logprob`` is that of its words; there are no Whisper tokens, and no
    probability of silence."""
    text = final["text"]
    sure = [max(word["confidence"], 1e-6) for word in final["words"]]
    return {
        "id": number,
        "seek": round(100 * final["start"]),
        "start": final["start"],
        "end": final["end"],
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(sum(map(math.log, sure)) / len(sure), 4) if sure else 0.0,
        "compression_ratio": round(len(text.encode()) / len(zlib.compress(text.encode())), 4),
        "no_speech_prob": 0.0,
    }
