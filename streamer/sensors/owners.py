"""Whose a sensor is: each owner of tokens has sensors of his own, whatever they are called.

A sensor's name inside is its owner's and its own, as of a stream (:mod:`streamer.names`); whoever brings readings has
them named so here, and what goes out to him has its own name again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace

from streamer.names import SEPARATOR, name_of, owner_of, stream_id
from streamer.sensors.columns import Forecasts, ReadingBatch

__all__ = ["VIEWER", "only", "owned_by", "shown", "visible"]

#: Whose sensors are on the metrics page that is made now; ``None``: everybody's.
VIEWER: ContextVar[str | None] = ContextVar("viewer", default=None)


def owned_by(owner: str, batch: ReadingBatch) -> ReadingBatch:
    """The readings as that owner's. A name that would be another's is no name, and refused as such."""
    if not owner and not any(SEPARATOR in name for name in batch.names):
        return batch
    return replace(batch, names=[stream_id(owner, name.replace(SEPARATOR, "\0")) for name in batch.names])


def only(owner: str, names: Sequence[str]) -> list[int]:
    """Which of the ``names`` are that owner's."""
    return [row for row, name in enumerate(names) if owner_of(name) == owner]


def visible(name: str) -> bool:
    """On the page that is made now."""
    viewer = VIEWER.get()
    return viewer is None or owner_of(name) == viewer


def shown(forecasts: Forecasts) -> Forecasts:
    """By the names that their owner knows."""
    return replace(
        forecasts,
        names=[name_of(name) for name in forecasts.names],
        failed=_named(forecasts.failed),
        late=_named(forecasts.late),
        duplicates=_named(forecasts.duplicates),
    )


def _named(readings: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name_of(name), time) for name, time in readings]
