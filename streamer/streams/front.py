"""Between the client's rows and the model's: the same, or sound at another rate.

Positions of a stream count the client's rows. A front converts between the client's and the model's positions, and the
rows that it holds back are part of a snapshot.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.refusals import RateError

__all__ = ["Direct", "Front", "Resampled", "is_sound", "make_front"]


class Front(Protocol):
    """The session's lock guards it."""

    #: The stream may be cut at any position: the front holds no rows back.
    exact: bool

    def push(self, rows: NDArray[Any]) -> NDArray[Any]: ...
    def finish(self) -> NDArray[Any]: ...
    def to_model(self, position: int) -> int: ...
    def to_client(self, position: int) -> int: ...
    def save(self) -> bytes: ...
    def load(self, data: bytes) -> None:
        """Raises ``ValueError`` for the memory of another kind of front."""


class Direct:
    """The client's rows are the model's."""

    exact = True

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._none: NDArray[Any] = np.zeros(0, dtype)

    def push(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows

    def finish(self) -> NDArray[Any]:
        return self._none

    def to_model(self, position: int) -> int:
        return position

    def to_client(self, position: int) -> int:
        return position

    def save(self) -> bytes:
        return b""

    def load(self, data: bytes) -> None:
        if data:
            raise ValueError("it was resampled, and is not here")


class Resampled:
    """int16 at ``rate_in`` Hz becomes int16 at ``rate_out`` Hz. Raises :class:`RateError`."""

    exact = False

    def __init__(self, rate_in: int, rate_out: int, lowest: int | None) -> None:
        from streamer.streams.resampler import Resampler  # imports soxr only where it is needed

        self._resampler = Resampler(rate_in, rate_out, lowest)
        self._in, self._out = rate_in, rate_out

    def push(self, rows: NDArray[Any]) -> NDArray[Any]:
        return self._resampler.push(rows)

    def finish(self) -> NDArray[Any]:
        return self._resampler.finish()

    def to_model(self, position: int) -> int:
        return -(-position * self._out // self._in)

    def to_client(self, position: int) -> int:
        return position * self._in // self._out

    def save(self) -> bytes:
        return self._resampler.save()

    def load(self, data: bytes) -> None:
        self._resampler.load(data)


def is_sound(manifest: Manifest) -> bool:
    """The rows are int16 samples of sound, one after the other: they can be resampled."""
    source = manifest.input
    return source.sample_rate is not None and manifest.row_dtype == np.dtype("<i2")


def make_front(manifest: Manifest, sample_rate: int | None) -> Front:
    """``sample_rate`` of the client in Hz, ``None``: the model's own. Raises :class:`RateError`."""
    own = manifest.input.sample_rate
    if sample_rate in (None, own):
        return Direct(manifest.row_dtype)
    if own is None:
        raise RateError(f"model {manifest.name!r} takes rows, not sound: leave out sample_rate")
    if not is_sound(manifest):
        raise RateError(f"model {manifest.name!r} takes {own} rows a second, and they can't be resampled: send those")
    assert sample_rate is not None
    return Resampled(sample_rate, own, manifest.input.lowest_rate)
