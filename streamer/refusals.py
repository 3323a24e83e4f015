"""Errors for refused streams and refused input. Nothing of refused input was taken."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "REFUSED",
    "BadInput",
    "BadRows",
    "NoSlot",
    "NotAttached",
    "NotSound",
    "Overflow",
    "RateError",
    "Refused",
    "TooManyMarkers",
    "refused",
]

#: The counters of refusals (without ``streamer_`` and ``_total``), and what each of them counts.
REFUSED = {
    "refusals": "streams refused",
    "refused_readings": "readings not taken",
    "refused_requests": "requests refused",
    "denied_requests": "requests denied",
    "bad_input": "input that can't be used",
    "evictions": "streams given up",
}


def refused(samples: Iterable[tuple[str, str, float]]) -> dict[tuple[str, str], int]:
    """Refusals since the start by counter and reason, from ``samples`` of the metrics page (counter, reason, value).
    Reasons with the count 0 are left out. The page counts a refused stream also as bad input; here it counts once."""
    found = {(name, reason): int(value) for name, reason, value in samples if name in REFUSED and value}
    return {
        (name, reason): count
        for (name, reason), count in found.items()
        if name != "bad_input" or ("refusals", reason) not in found
    }


class BadInput(ValueError):  # noqa: N818
    """Data that can't be taken: an odd number of bytes, or samples after the end."""


class BadRows(BadInput):
    """Rows of another dtype or shape than the model's. The message names the input, its dtype and its shape."""


class NotAttached(BadInput):
    """Another client has taken the stream over, or the daemon has detached this one; the client's sink gets the
    reason."""


class NotSound(BadInput):
    """The first bytes are those of a file format, where raw PCM is expected."""


class TooManyMarkers(BadInput):
    """The stream already has the maximum number of waiting markers."""


class Overflow(ValueError):  # noqa: N818
    """The buffer is full and its policy is ``wait``."""


class RateError(ValueError):
    """The model can't be served at this sample rate."""


class NoSlot(RuntimeError):  # noqa: N818
    """All slots of the model are taken."""


class Refused(Exception):  # noqa: N818
    """A stream that can't be served, counted by ``reason``. ``retry_after``: seconds, where a retry may help. ``url``:
    the daemon that has the stream now (reason ``moved``)."""

    def __init__(self, reason: str, message: str, retry_after: float | None = None, url: str | None = None) -> None:
        super().__init__(message)
        self.reason, self.message, self.retry_after, self.url = reason, message, retry_after, url
