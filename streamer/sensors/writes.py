"""Requests to the writer of a fleet, and the futures that their senders wait for."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streamer.sensors.arrival import Arrival
from streamer.sensors.columns import Forecasts, ReadingBatch
from streamer.sensors.commit import Receipt, promise
from streamer.sensors.reply import Reply

__all__ = ["NO_READINGS", "BusyError", "Entry", "PendingWrite"]

NO_READINGS = ReadingBatch((), np.zeros(0), np.zeros(0))


class BusyError(RuntimeError):
    """More readings wait than are allowed: come back in ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """Futures. ``safe``: done when the readings are on the disk (without a journal: accepted). ``forecasts``: done when
    all of them are run."""

    safe: Future[Receipt]
    forecasts: Future[Forecasts] | None


@dataclass(slots=True)
class Entry:
    """A request to the writer: to accept the readings of ``batch``, or ``forget``, or ``bring``. ``reply``: collects
    their forecasts. ``safe`` is done once the request is on the disk."""

    batch: ReadingBatch
    reply: Reply | None
    safe: Future[Any] = field(default_factory=promise)
    forget: str | None = None  # the stream to forget
    only: tuple[int, int] | None = None  # see Plan.forget
    bring: Arrival | None = None  # the stream to import
