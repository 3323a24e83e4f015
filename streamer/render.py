"""Events as text: subtitles (SRT, WebVTT), JSON lines and plain lines. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["dumped", "json_line", "label_line", "srt", "subtitles", "vtt"]

Event = Mapping[str, Any]

#: Bounds of a readable subtitle: two lines of about 42 characters, seven seconds.
CUE_CHARACTERS = 84
CUE_SECONDS = 7.0
#: A shorter cue is shown this long, unless the next one begins before.
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
    """JSON that is always valid UTF-8: invalid bytes of a file name become ``\\udc80`` to ``\\udcff``, as in
    :func:`os.fsdecode`."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(line)
    return text


def subtitles(events: Iterable[Event]) -> list[tuple[float, float, str]]:
    """Cues ``(start, end, text)`` of the finals, in seconds. Finals that are too long to read are split between
    words."""
    cues: list[tuple[float, float, str]] = []
    for event in events:
        if event["type"] != "final" or not event["text"]:
            continue
        cues += _split(event["words"]) if event["words"] else [(event["start"], event["end"], event["text"])]
    shown = []
    for index, (start, end, text) in enumerate(cues):
        following = cues[index + 1][0] if index + 1 < len(cues) else float("inf")
        shown.append((start, max(end, min(start + MIN_CUE_SECONDS, following)), text))
    return shown


def _split(words: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    """The words as cues that keep to the bounds."""
    cues: list[tuple[float, float, str]] = []
    for word in words:
        start, end, text = word["start"], word["end"], word.get("written", word["word"])
        if not text:  # the written form of the word before includes this word
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
    """The finals as SubRip subtitles."""
    cues = enumerate(subtitles(events), 1)
    return "".join(f"{n}\n{_clock(a, ',')} --> {_clock(b, ',')}\n{text}\n\n" for n, (a, b, text) in cues)


def vtt(events: Iterable[Event]) -> str:
    """The finals as WebVTT subtitles. ``&``, ``<`` and ``>`` are escaped: they are markup, and ``-->`` begins times."""
    cues = (
        (a, b, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) for a, b, text in subtitles(events)
    )
    return "WEBVTT\n\n" + "".join(f"{_clock(a, '.')} --> {_clock(b, '.')}\n{text}\n\n" for a, b, text in cues)


def _clock(seconds: float, point: str) -> str:
    millis = round(seconds * 1000)
    minutes, millis = divmod(millis, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{millis // 1000:02d}{point}{millis % 1000:03d}"
