"""The events of one stream on their way to its client: they are numbered, held back while an earlier final is open, and
kept for a client that comes back. Markers wait until the rows before them are decoded. The session's lock guards all.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from streamer.refusals import NotAttached, TooManyMarkers
from streamer.streams.snapshot import KeptEvent
from streamer.tasks import Event
from streamer.tasks.raw import Outputs

__all__ = ["Delivery", "Late", "Markers", "Sink", "Waiters", "preview", "to_dicts"]

log = logging.getLogger(__name__)

Sink = Callable[[list[dict[str, Any]]], None]


class Delivery:
    """``sink``: where events go, ``None`` while the client is away. ``seq``: number of the last event.

    ``kept``: numbered events for a client that comes back, ``bound`` of them and ``max_bytes`` of tensors and sound at
    most; ``lost()`` is called for each event that is dropped while no client is attached.

    A final in the second pass is open until :meth:`settle`. It has its number already, and so have the later events
    that wait for it: numbers depend on the rows alone, not on the time that the second pass takes.
    """

    def __init__(
        self, stream: str, bound: int, max_bytes: int, lost: Callable[[], None], sink: Sink | None = None
    ) -> None:
        self.sink, self.seq, self.bound = sink, 0, bound
        self.kept: deque[KeptEvent] = deque()
        self._waiting: deque[dict[str, Any] | Callable[[], None]] = deque()  # the first one is open, or there is none
        self._open: set[int] = set()  # numbers
        self._max_bytes, self._bytes = max_bytes, 0
        self._stream, self._lost = stream, lost

    def emit(self, events: list[dict[str, Any]], held: Sequence[dict[str, Any]] = ()) -> None:
        """Number the events, keep them, send them. The first ``held`` event and all after it wait."""
        for event in events:
            self.seq += 1
            event["seq"] = self.seq
        if not held and not self._waiting:
            self._give(events)
            return
        self._open.update(event["seq"] for event in held)
        for event in events:
            last = self._waiting[-1] if self._waiting else None
            if event["type"] in ("partial", "final") and isinstance(last, dict) and last["type"] == "partial":
                self._waiting.pop()  # superseded
            self._waiting.append(event)
        self._release()
        if self._waiting and any(event["type"] == "partial" for event in events):
            self.send([preview(self.waiting)])

    def settle(self, event: dict[str, Any]) -> None:
        """The second pass of a held event is done: send the event, and the events that waited for it."""
        self._open.discard(event["seq"])
        self._release()

    def call(self, call: Callable[[], None]) -> None:
        """Call ``call`` once all events so far are sent."""
        if self._waiting:
            self._waiting.append(call)
        else:
            call()

    def saved(self) -> list[dict[str, Any]]:
        """Copies of the events that a client may not have seen, for a snapshot. Open finals are saved as they are: a
        restored stream does not repeat the second pass."""
        open_ = [{**event, "revised": False} if event["seq"] in self._open else dict(event) for event in self.waiting]
        return [*self.kept, *open_]

    @property
    def held(self) -> int:
        """Open events."""
        return len(self._open)

    @property
    def waiting(self) -> list[dict[str, Any]]:
        """Events that have a number and were not sent."""
        return [entry for entry in self._waiting if isinstance(entry, dict)]

    def settle_all(self) -> None:
        """Send all waiting events as they are."""
        for event in self.waiting:
            if event["seq"] in self._open:
                event["revised"] = False
        self._open.clear()
        self._release()

    def drop(self) -> None:
        """Drop the waiting events, but make the waiting calls."""
        calls = [entry for entry in self._waiting if not isinstance(entry, dict)]
        self._waiting.clear()
        self._open.clear()
        for call in calls:
            call()

    def _release(self) -> None:
        while self._waiting:
            ready: list[dict[str, Any]] = []
            while self._waiting and isinstance(entry := self._waiting[0], dict) and entry["seq"] not in self._open:
                ready.append(entry)
                self._waiting.popleft()
            self._give(ready)
            if not self._waiting or isinstance(entry := self._waiting[0], dict):
                return
            self._waiting.popleft()
            entry()

    def _give(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if self.kept and self.kept[-1]["type"] == "partial" and event["type"] in ("partial", "final"):
                self._bytes -= _size(self.kept.pop())  # superseded
            self.keep(event)
            if event["type"] == "final":
                log.debug("final", extra={"stream": self._stream, "seq": event["seq"], "text": event.get("text")})
        self.send(events)

    def keep(self, event: dict[str, Any]) -> None:
        """Keep the event for a client that comes back; it must not change any more. The oldest events are dropped."""
        kept = self.kept
        kept.append(KeptEvent(event))
        self._bytes += _size(event)
        while len(kept) > self.bound or (self._bytes > self._max_bytes and len(kept) > 1):
            self._bytes -= _size(kept.popleft())
            if self.sink is None:
                self._lost()

    def restore(self, seq: int, events: Sequence[dict[str, Any]]) -> None:
        """Continue after these events."""
        self.seq = seq
        for event in events:
            self.keep(event)

    def send(self, events: list[dict[str, Any]]) -> None:
        """Send the events to the sink. A sink that raises is detached: its client has to come back."""
        if events and self.sink is not None:
            try:
                self.sink(events)
            except Exception:
                log.exception("a sink failed, its stream goes on without it", extra={"stream": self._stream})
                self.sink = None

    def check(self, sink: Sink | None) -> None:
        """Raises :class:`NotAttached` unless ``sink`` is the present one; ``None`` passes with any sink."""
        if sink is not None and sink is not self.sink:
            raise NotAttached("this stream was resumed elsewhere")

    def attach(self, sink: Sink, after_seq: int | None) -> None:
        """Send events to ``sink`` from now on, first the kept ones after ``after_seq`` (``None``: none, and they are
        kept no longer). The previous sink gets an event."""
        self.send([{"type": "error", "code": "taken_over", "message": "this stream was resumed elsewhere"}])
        self.sink = sink
        if after_seq is None:
            self._forget()
        else:
            self.send([event for event in self.kept if event["seq"] > after_seq])

    def keep_none(self) -> None:
        """From now on."""
        self.bound = 0
        self._forget()

    def _forget(self) -> None:
        self.kept.clear()
        self._bytes = 0

    def detach(self, sink: Sink | None) -> bool:
        """Forget the sink; with ``sink`` only if it is still that one. True if so."""
        if self.sink is None or (sink is not None and sink is not self.sink):
            return False
        self.sink = None
        return True


def preview(waiting: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The waiting finals and the partial after them as one partial. It has no number and is never replayed: the client
    sees the words at once, and gets the final events later."""
    said = [event for event in waiting if event["type"] in ("partial", "final") and event["text"]]
    text = " ".join(event["text"] for event in said)
    words = [word for event in said for word in event["words"]]
    start, end = (said[0]["start"], said[-1]["end"]) if said else (waiting[-1]["start"], waiting[-1]["end"])
    return {"type": "partial", "text": text, "start": start, "end": end, "words": words, "stable": 0}


class Markers:
    """Markers that wait for the audio before them to be decoded, ``bound`` at most.

    A client that comes back can't know whether its last marker before the break arrived, and sends it again: the same
    id at the same position is one marker. Two would shift the numbers by which a client recognises repeated events.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        #: id, position, consumed samples at which it is due
        self.waiting: deque[tuple[str, int, int]] = deque()
        self._said: dict[str, None] = {}  # ids at the position _at, in order
        self._at = -1

    def add(self, id: str, position: int, due: int, delivery: Delivery) -> bool:
        """False if the marker was sent at this position before. Raises :class:`TooManyMarkers`, since waiting markers
        take memory."""
        if self._at != position:  # looked up once for each position, not for each marker
            self._said, self._at = self._known(position, delivery), position
        if id in self._said:
            return False
        count = len(self.waiting) + sum(event["type"] == "marker" for event in delivery.waiting)
        if count >= self.bound:
            raise TooManyMarkers(f"{count} markers wait for audio already: send some first")
        self._said[id] = None
        if len(self._said) > delivery.bound:  # the oldest is forgotten, as its event is
            del self._said[next(iter(self._said))]
        self.waiting.append((id, position, due))
        return True

    def due(self, consumed: int | None = None) -> list[dict[str, Any]]:
        """Events of the markers that are due when ``consumed`` samples are decoded; without ``consumed``: of all."""
        found = []
        while self.waiting and (consumed is None or self.waiting[0][2] <= consumed):
            id, position, _ = self.waiting.popleft()
            found.append({"type": "marker", "id": id, "position": position})
        return found

    def __bool__(self) -> bool:
        return bool(self.waiting)

    def _known(self, position: int, delivery: Delivery) -> dict[str, None]:
        waiting = (id for id, at, _ in self.waiting if at == position)
        sent: list[str] = []
        for event in chain(reversed(delivery.waiting), reversed(delivery.kept)):
            if event["type"] == "marker" and event["position"] <= position:
                if event["position"] < position:
                    break  # positions never fall: thousands of older events need not be looked at
                sent.append(event["id"])
        return dict.fromkeys((*reversed(sent), *waiting))


class Waiters:
    """Calls that wait until so many rows are run."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Callable[[], None]]] = []

    def add(self, target: int, call: Callable[[], None]) -> None:
        self._waiting.append((target, call))

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def due(
        self,
        consumed: int | None = None,
        make: Callable[[Callable[[], None]], None] = lambda call: call(),
    ) -> None:
        """Pass the calls whose target is reached to ``make``; without ``consumed``: all."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for target, call in waiting:
            if consumed is None or consumed >= target:
                make(call)
            else:
                self._waiting.append((target, call))


class Late(NamedTuple):
    """Where the task's memory begins in the stream (at the last gap), in each unit that events have."""

    seconds: float
    rows: int
    steps: int


def to_dicts(events: Sequence[Event], late: Late) -> list[dict[str, Any]]:
    """JSON-ready, but for the arrays of an ``outputs`` event (:func:`streamer.tasks.raw.plain`)."""
    return [_to_dict(event, late) for event in events]


def _to_dict(event: Event, late: Late) -> dict[str, Any]:
    if isinstance(event, Outputs):
        found = event.to_arrays()
        found["start"], found["end"] = event.start + late.rows, event.end + late.rows
        return found
    found = event.to_dict()
    if late.rows:
        for part in (found, *found.get("words", ())):
            for time in ("start", "end"):
                if part.get(time) is not None:  # an open segment has no end yet
                    part[time] = round(part[time] + late.seconds, 3)
        if "step" in found:
            found["step"] += late.steps
    return found


def _size(event: dict[str, Any]) -> int:
    """Bytes of an event's tensors and sound."""
    outputs = event.get("outputs")
    tensors = sum(array.nbytes for array in outputs.values()) if outputs else 0
    return tensors + len(event.get("pcm", ""))
