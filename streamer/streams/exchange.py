"""A request and its answer over a stream: rows in, and the events of those rows out once they are run.

For request-response protocols (HTTP, KServe). Between two requests no client is attached, and the stream waits under
its key like one whose connection was lost.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from streamer.refusals import NotAttached
from streamer.streams.session import Session

__all__ = ["Exchange"]


class Exchange:
    """A sink for :meth:`Registry.open`. ``done`` is called once, from any thread, when the answer is complete: it must
    not block. Then ``events`` are those of the rows, in order, and ``error`` is the event that ended the stream, if
    any."""

    def __init__(self, done: Callable[[], None]) -> None:
        self.events: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self._done, self._over = done, False
        self._lock = threading.Lock()

    def send(self, session: Session, rows: NDArray[Any], *, end: bool = False) -> None:
        """Feed the rows to the stream that was opened with this sink. ``end``: they are the last ones.

        Raises :class:`BadInput` or :class:`Overflow`: nothing was taken. If another client took the stream over
        meanwhile nothing is taken either, and the answer says so.
        """
        try:
            if len(rows) or not end:
                session.feed_rows(rows, self)
            if end:
                session.end(self)
        except NotAttached as error:
            self.error = self.error or {"type": "error", "code": "taken_over", "message": str(error)}
            self._finish()
            return
        session.when_run(self._finish)

    def __call__(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            if event["type"] == "error":
                self.error = event
                self._finish()
            elif event["type"] == "restart":  # rows that are not run yet are run after the restart, without an answer
                text = f"the daemon is going down, the stream is saved up to row {event['position']}"
                self.error = self.error or {"type": "error", "code": "draining", "message": text}
                self._finish()
            elif "seq" in event:
                self.events.append(event)

    def _finish(self) -> None:
        with self._lock:
            over, self._over = self._over, True
        if not over:
            self._done()
