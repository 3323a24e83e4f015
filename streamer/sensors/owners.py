"""Owners of sensors: each owner of tokens has separate sensors, also with equal names.

The internal name of a sensor contains its owner's name and its own, as that of a stream (:mod:`streamer.names`). The
names of incoming readings are converted here, and those of results back to the names that the owner knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace

from streamer.names import SEPARATOR, name_of, owner_of, stream_id
from streamer.sensors.columns import Forecasts, ReadingBatch

__all__ = ["VIEWER", "only", "owned_by", "shown", "visible"]

#: The owner whose sensors are on the metrics page that is being made; ``None``: all owners.
VIEWER: ContextVar[str | None] = ContextVar("viewer", default=None)


def owned_by(owner: str, batch: ReadingBatch) -> ReadingBatch:
    """The readings under the owner's internal names. A name that contains the separator is refused as invalid."""
    if not owner and not any(SEPARATOR in name for name in batch.names):
        return batch
    return replace(batch, names=[stream_id(owner, name.replace(SEPARATOR, "\0")) for name in batch.names])


def only(owner: str, names: Sequence[str]) -> list[int]:
    """The ``names`` that belong to the owner."""
    return [row for row, name in enumerate(names) if owner_of(name) == owner]


def visible(name: str) -> bool:
    """Whether a sensor is on the metrics page that is being made."""
    viewer = VIEWER.get()
    return viewer is None or owner_of(name) == viewer


def shown(forecasts: Forecasts) -> Forecasts:
    """The names as their owner knows them."""
    return replace(
        forecasts,
        names=[name_of(name) for name in forecasts.names],
        failed=_named(forecasts.failed),
        late=_named(forecasts.late),
        duplicates=_named(forecasts.duplicates),
    )


def _named(readings: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(name_of(name), time) for name, time in readings]
