"""Events as text: subtitles (SRT, WebVTT), JSON lines and plain lines. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["dumped", "json_line", "label_line", "srt", "subtitles", "vtt"]

Event = Mapping[str, Any]

#: A subtitle must be readable: two lines of about 42 characters, for seven seconds at most.
CUE_CHARACTERS = 84
CUE_SECONDS = 7.0
#: A shorter cue flashes by; it is held this long unless the next one begins.
MIN_CUE_SECONDS = 1.0


def json_line(event: Event, file: str) -> str:
    """A ``partial`` or ``final`` as a line of ``--json``: type, file, text, start, end, words; times in seconds."""
    keys = ("word", "start", "end", "confidence", "written")
    words = [{key: word[key] for key in keys if key in word} for word in event["words"]]
    line = {"type": event["type"], "file": file, "text": event["text"]}
    line |= {"start": event["start"], "end": event["end"], "words": words}
    return dumped(line | {key: event[key] for key in ("revised",) if key in event})


def label_line(event: Event, file: str) -> str:
    """A classifier's event as a line of ``--json``: type, file, and the event's own fields; times in seconds."""
    own = {key: value for key, value in event.items() if key not in ("type", "seq")}
    return dumped({"type": event["type"], "file": file} | own)


def dumped(line: Mapping[str, Any]) -> str:
    """JSON that is always UTF-8: bytes of a file name that are not become ``\\udc80`` to ``\\udcff``, as
    :func:`os.fsdecode` has them."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(line)
    return text


def subtitles(events: Iterable[Event]) -> list[tuple[float, float, str]]:
    """Cues ``(start, end, text)`` of finals, split at word ends where one would be too long to read."""
    cues: list[tuple[float, float, str]] = []
    for event in events:
        if event["type"] != "final" or not event["text"]:
            continue
        cues += _split(event["words"]) if event["words"] else [(event["start"], event["end"], event["text"])]
    held = []
    for index, (start, end, text) in enumerate(cues):
        room = cues[index + 1][0] if index + 1 < len(cues) else float("inf")
        held.append((start, max(end, min(start + MIN_CUE_SECONDS, room)), text))
    return held


def _split(words: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    cues: list[tuple[float, float, str]] = []
    for word in words:
        start, end, text = word["start"], word["end"], word.get("written", word["word"])
        if not text:  # written as one with the word before
            cues[-1] = (cues[-1][0], end, cues[-1][2])
            continue
        if cues:
            first, _, before = cues[-1]
            if len(before) + 1 + len(text) <= CUE_CHARACTERS and end - first <= CUE_SECONDS:
                cues[-1] = (first, end, f"{before} {text}")
                continue
        cues.append((start, end, text))
    return cues


def srt(events: Iterable[Event]) -> str:
    """SubRip."""
    cues = enumerate(subtitles(events), 1)
    return "".join(f"{n}\n{_clock(a, ',')} --> {_clock(b, ',')}\n{text}\n\n" for n, (a, b, text) in cues)


def vtt(events: Iterable[Event]) -> str:
    """WebVTT; ``&`` and ``<`` are markup there, and ``-->`` would be read as a cue's times."""
    cues = (
        (a, b, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) for a, b, text in subtitles(events)
    )
    return "WEBVTT\n\n" + "".join(f"{_clock(a, '.')} --> {_clock(b, '.')}\n{text}\n\n" for a, b, text in cues)


def _clock(seconds: float, point: str) -> str:
    millis = round(seconds * 1000)
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{millis // 1000:02d}{point}{millis % 1000:03d}"
