"""Text that only grows, from partials that change: for protocols that can append text and never take it back.

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
    """The new text of each event of a stream. All deltas joined are the stream's finals, with a blank between two.

    ``early``: the stable words of partials are sent, too. Only if finals have the words of their partials
    (:func:`finals_are_plain`).
    """

    def __init__(self, early: bool) -> None:
        self._early = early
        self._sent = ""  # of the open utterance
        self._between = ""  # the separator before the next utterance

    def of(self, event: Event) -> str:
        """The text that this event adds; empty: none."""
        final = event["type"] == "final"
        if not final and not (self._early and event["type"] == "partial"):
            return ""
        text, sent = stable_text(event), self._sent
        new = text[len(sent) :] if text.startswith(sent) else ""
        found = self._between + new if new and not sent else new
        self._sent = "" if final else sent + new
        if final and text:
            self._between = " "
        return found


def stable_text(event: Event) -> str:
    """The text of a partial that will not change; the whole text of a final."""
    if event["type"] == "final":
        return str(event["text"])
    text = " ".join(word["word"] for word in event["words"][: event.get("stable", 0)])
    return text if event["text"].startswith(text) else ""  # a script without spaces between its words


def finals_are_plain(settings: Settings, options: Mapping[str, Any]) -> bool:
    """Whether nothing rewrites finals: then a final begins with the stable text of its partials."""
    forms = {options.get("text", settings.text), options.get("numbers", settings.numbers)}
    return forms == {"spoken"} and not (settings.revise and options.get("revise", True))


def written_words(finals: Sequence[Event]) -> list[dict[str, Any]]:
    """The words of finals as they are written; words that are written as one become one word."""
    found: list[dict[str, Any]] = []
    for final in finals:
        for word in final["words"]:
            text = word.get("written", word["word"])
            if text:
                found.append({**word, "word": text})
            elif found:
                found[-1]["end"] = word["end"]
    return found
