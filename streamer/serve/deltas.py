"""Text that only grows, out of partials that change: for protocols that can add to what was said and not take it back.

Pure functions of events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["Deltas", "finals_are_plain", "stable_text", "written_words"]

Event = Mapping[str, Any]


class Deltas:
    """What is new of a stream: all deltas one after the other are its finals, a blank between two.

    ``early``: the stable words of partials are told, too. Only where finals are the words of the partials
    (:func:`finals_are_plain`).
    """

    def __init__(self, early: bool) -> None:
        self._early = early
        self._told = ""  # of the utterance that is open
        self._between = ""  # what stands before the next utterance

    def of(self, event: Event) -> str:
        """What this event adds; empty: nothing."""
        final = event["type"] == "final"
        if not final and not (self._early and event["type"] == "partial"):
            return ""
        text, told = stable_text(event), self._told
        new = text[len(told) :] if text.startswith(told) else ""
        found = self._between + new if new and not told else new
        self._told = "" if final else told + new
        if final and text:
            self._between = " "
        return found


def stable_text(event: Event) -> str:
    """What of a partial will not change; of a final, all of it."""
    if event["type"] == "final":
        return str(event["text"])
    text = " ".join(word["word"] for word in event["words"][: event.get("stable", 0)])
    return text if event["text"].startswith(text) else ""  # a script without spaces between its words


def finals_are_plain(settings: Settings, options: Mapping[str, Any]) -> bool:
    """Nothing rewrites a final: it begins with what its partials said for good."""
    forms = {options.get("text", settings.text), options.get("numbers", settings.numbers)}
    return forms == {"spoken"} and not (settings.revise and options.get("revise", True))


def written_words(finals: Sequence[Event]) -> list[dict[str, Any]]:
    """The words of finals as they are written: what is written as one with the word before is part of it."""
    found: list[dict[str, Any]] = []
    for final in finals:
        for word in final["words"]:
            text = word.get("written", word["word"])
            if text:
                found.append({**word, "word": text})
            elif found:
                found[-1]["end"] = word["end"]
    return found
