"""A bounded queue of sensors' results from lanes to the event loop; lanes never wait for readers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from streamer.sensors.columns import StepResult
from streamer.sensors.ingest import Fleet

__all__ = ["MOST", "ResultQueue"]

#: Most readings whose results wait for the event loop, which is seconds behind then.
MOST = 16_384

Receiver = Callable[[Fleet, StepResult], None]


class ResultQueue:
    """``call`` schedules ``receive`` on the event loop, which gets the results in order. If more than ``most`` readings
    would wait, the oldest results are passed to ``dropped`` instead, in the lane's thread."""

    def __init__(
        self, call: Callable[[Callable[[], None]], None], receive: Receiver, dropped: Receiver, most: int = MOST
    ) -> None:
        self._call, self._receive, self._dropped, self._most = call, receive, dropped, most
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Fleet, StepResult]] = deque()
        self._readings = 0
        self._calls = 0  # calls under way to the event loop; each takes one result, if there is one

    def put(self, fleet: Fleet, result: StepResult) -> None:
        """Called by lanes."""
        dropped = []
        with self._lock:
            self._waiting.append((fleet, result))
            self._readings += len(result.slots)
            while self._readings > self._most and len(self._waiting) > 1:
                dropped.append(self._take())
            more = len(self._waiting) > self._calls
            self._calls += more
        for each in dropped:
            self._dropped(*each)
        if more:
            self._call(self._next)

    def _next(self) -> None:
        with self._lock:
            self._calls -= 1
            found = self._take() if self._waiting else None
        if found is not None:
            self._receive(*found)

    def _take(self) -> tuple[Fleet, StepResult]:
        found = self._waiting.popleft()
        self._readings -= len(found[1].slots)
        return found
