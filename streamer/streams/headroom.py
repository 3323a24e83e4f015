"""Decides whether one more stream can be served in real time beside the present ones, or is refused.

A stream is admitted if no other sends. Otherwise each of three signs of overload refuses it: results, or the event loop
(``behind``), are late; real-time streams take too large a share of the lanes' time, as measured; many streams have just
begun, so their cost is not measured yet. Each sending stream counts as one in real time, however fast it sends: its
rows beyond real time are run when nothing else is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from streamer.engine.engine import Engine
from streamer.streams.table import StreamTable

if TYPE_CHECKING:
    from streamer.settings import Settings
    from streamer.streams.session import Session

__all__ = ["Headroom"]

#: A stream that has begun within the last :data:`PROVING` seconds counts as this many: its cost is only predicted.
SAFETY = 3.0
PROVING = 1.0
#: A stream that sent nothing for so many seconds is idle: it takes no share.
IDLE = 2.0
#: Share of the rest beyond ``max_load`` that models below their fair share may use.
RESERVE = 0.5
#: Refused clients are told to come back at this rate a second, and after this many seconds at most.
RETRIES, LAST_RETRY = 20, 60.0
#: Bounds of the allowed lateness in seconds, for very short and very long chunks.
SHORTEST, LONGEST = 0.05, 2.0


class Headroom:
    """``engines`` by model. ``behind()``: seconds by which the event loop is late."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        table: StreamTable,
        settings: Settings,
        behind: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._engines, self._table, self._settings = engines, table, settings
        self._behind, self._clock = behind, clock
        self._retry = 0.0  # when the last refused client may come back

    def allowed(self, engine: Engine) -> float:
        """Seconds that a result may be late: half a chunk's time, so that few are late by a whole one."""
        if given := self._settings.overload_seconds:
            return given
        return min(max(SHORTEST, engine.manifest.chunk_seconds / 2 or LONGEST), LONGEST)

    def lack(self, engine: Engine) -> tuple[str, float] | None:
        """Why one more stream of the model is too much, and the seconds after which to try again; ``None``: there is
        room."""
        if (found := self._lack(engine)) is None:
            return None
        why, after = found
        if not any(self._sends(session) for session in self._table.all()):
            return None  # the streams that caused the delay have left: a lone stream is admitted
        now = self._clock()
        self._retry = max(now, min(self._retry, now + LAST_RETRY)) + 1 / RETRIES  # not all of them at once
        return why, after + self._retry - now

    def _lack(self, engine: Engine) -> tuple[str, float] | None:
        late = self.allowed(engine)
        if (waited := engine.waited()) > late:
            return f"the machine is {waited:.2f} s behind real time", max(2.0, waited + 1)
        if engine.load.late():
            return f"results come more than {late:.2g} s late", 2.0
        if (waited := self._behind()) > late:
            return f"the event loop is {waited:.2f} s late", 2.0
        return self._full(engine) if self._settings.max_load else None

    def watch(self, engine: Engine) -> None:
        """Count late chunks of its streams, and show its load."""
        engine.load.allowed = self.allowed(engine)
        engine.metrics.watch(load=lambda: self.share(engine))

    def share(self, engine: Engine) -> float:
        """The share of the lanes' time that the model's sending streams take."""
        return engine.load.share(self._sending(engine)[0])

    def taken(self) -> float:
        """The part that is taken, 0 to 1, of what streams in real time may take of the lanes' time."""
        total = sum(map(self.share, list(self._engines.values())))
        return min(1.0, total / (self._settings.max_load or 1.0))

    def _full(self, engine: Engine) -> tuple[str, float] | None:
        most = self._settings.max_load
        engines = list(self._engines.values())
        if SAFETY * sum(each.load.share(each.arena.used + 1) for each in engines) <= most:
            return None  # which is nearly always so, and costs little to find out
        sending, beginning = self._sending(engine)
        mine = engine.load.share(sending + 1)
        shares = [mine, *(self.share(each) for each in engines if each is not engine)]
        total, busy = sum(shares), sum(share > 0 for share in shares)
        if busy > 1 and mine <= most / busy:
            most += RESERVE * (1 - most)
        if total > most:
            return f"streams in real time take {100 * total:.0f}% of the machine (max_load)", 5.0
        if total + (SAFETY - 1) * mine * (beginning + 1) / (sending + 1) > most and beginning:
            return f"{beginning} streams have just begun, and what they take is not known yet", PROVING
        return None

    def _sending(self, engine: Engine) -> tuple[int, int]:
        """Streams of the model that send, and those of them that have just begun."""
        now, name = self._clock(), engine.manifest.name
        mine = [session for session in self._table.all() if session.model == name and session.state == "active"]
        beginning = sum(now - session.begun < PROVING for session in mine)
        return sum(map(self._sends, mine)), beginning

    def _sends(self, session: Session) -> bool:
        waits = session.sink is not None and session.buffered_rows > 0
        return session.state == "active" and (waits or self._clock() - session.last_input < IDLE)
