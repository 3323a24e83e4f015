"""Turns a stream's events into those of a realtime session. Pure: events in, server events out."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

from streamer.serve.deltas import Deltas, written_words
from streamer.serve.openai.answers import usage

__all__ = ["FlatItems", "Items", "ServerEvents", "SessionItems", "seq_of"]

Event = Mapping[str, Any]
Messages = list[dict[str, Any]]

TRANSCRIPTION = "conversation.item.input_audio_transcription"


class ServerEvents:
    """Makes server events. Their ids hold the number of the stream's event that they come from, so that a client can
    name the last one it got."""

    def __init__(self) -> None:
        self.seq = 0
        self._count = itertools.count(1)

    def make(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"type": kind, "event_id": f"event_{self.seq}_{next(self._count)}", **fields}


def seq_of(event_id: str) -> int | None:
    """The number in an event's id; ``None``: the id is not one of this daemon."""
    found = re.fullmatch(r"event_(\d{1,15})_\d+", event_id)
    return int(found[1]) if found else None


class Items(Protocol):
    """Makes the server events of an open stream, in one dialect."""

    def add(self, event: Event) -> Messages:
        """A partial or a final."""

    def commit(self) -> Messages:
        """The client ends its utterance here; the rest of its text follows later."""

    def finish(self, seconds: float) -> Messages:
        """The committed stream is over; it was ``seconds`` long."""


class SessionItems:
    """OpenAI's own shape. ``turns``: the stream decides where an item ends, else :meth:`commit` does. ``name``: the
    prefix of its items' ids; ``offset``: seconds of the session before this stream. ``seq``: the last event of the
    stream that the client has."""

    def __init__(
        self,
        events: ServerEvents,
        name: str,
        *,
        turns: bool,
        early: bool,
        logprobs: bool = False,
        offset: float = 0.0,
        previous: str | None = None,
        seq: int = 0,
    ) -> None:
        self._make, self._events, self._name = events.make, events, name
        self._turns, self._logprobs, self._offset = turns, logprobs, offset
        self._early, self._deltas = early, Deltas(early)
        self._finals: list[Event] = []  # of the open item
        self._open = self._committed = False
        self._last = seq  # number of the final before the open item
        self.previous = previous

    @property
    def _item(self) -> str:
        return f"item_{self._name}_{self._last}"

    def add(self, event: Event) -> Messages:
        self._events.seq = event.get("seq", self._events.seq)
        final = event["type"] == "final"
        messages: Messages = []
        if event["text"] and not self._open:
            messages += self._begin(event)
        if final and event["text"]:
            self._finals.append(event)
        closing = final and self._turns and self._open
        if closing:
            end = round(1000 * (event["end"] + self._offset))
            messages.append(self._make("input_audio_buffer.speech_stopped", audio_end_ms=end, item_id=self._item))
            messages += self._commit()
        if delta := self._deltas.of(event):
            messages.append(self._transcript("delta", delta=delta))
        if closing:
            messages.append(self._completed(event["end"] - event["start"]))
            self._close(event["seq"])
        return messages

    def commit(self) -> Messages:
        self._committed = True
        return self._commit() if not self._turns else []

    def finish(self, seconds: float) -> Messages:
        """A commit gives an item, even if nothing was heard."""
        if self._turns and not self._committed:
            return []
        messages = [*(self._commit() if self._turns else []), self._completed(seconds)]
        self._close(self._last)
        return messages

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, event: Event) -> Messages:
        self._open = True
        if not self._turns:
            return []
        start = round(1000 * (event["start"] + self._offset))
        return [self._make("input_audio_buffer.speech_started", audio_start_ms=start, item_id=self._item)]

    def _commit(self) -> Messages:
        self._committed = False
        content = [{"type": "input_audio", "transcript": None}]
        item = {"id": self._item, "object": "realtime.item", "type": "message", "role": "user", "content": content}
        place = {"previous_item_id": self.previous}
        return [
            self._make("input_audio_buffer.committed", item_id=self._item, **place),
            self._make("conversation.item.added", item=item | {"status": "completed"}, **place),
            self._make("conversation.item.done", item=item | {"status": "completed"}, **place),
        ]

    def _completed(self, seconds: float) -> dict[str, Any]:
        text = " ".join(final["text"] for final in self._finals)
        more: dict[str, Any] = {}
        if self._logprobs:
            more["logprobs"] = [
                {
                    "token": word["word"],
                    "bytes": list(word["word"].encode()),
                    "logprob": round(math.log(max(word["confidence"], 1e-6)), 4),
                }
                for word in written_words(self._finals)
            ]
        return self._transcript("completed", transcript=text, usage=usage(seconds), **more)

    def _transcript(self, what: str, **fields: Any) -> dict[str, Any]:
        return self._make(f"{TRANSCRIPTION}.{what}", item_id=self._item, content_index=0, **fields)

    def _close(self, seq: int) -> None:
        self.previous = self._item
        self._finals, self._open, self._last = [], False, seq
        self._deltas = Deltas(self._early)


class FlatItems:
    """vLLM's shape: deltas, and the whole text at the end."""

    def __init__(self, early: bool) -> None:
        self._deltas, self._text = Deltas(early), ""

    def add(self, event: Event) -> Messages:
        delta = self._deltas.of(event)
        self._text += delta
        return [{"type": "transcription.delta", "delta": delta}] if delta else []

    def commit(self) -> Messages:
        return []

    def finish(self, seconds: float) -> Messages:
        return [{"type": "transcription.done", "text": self._text, "usage": None}]
