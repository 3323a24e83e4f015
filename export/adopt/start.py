"""Initial values of states other than zeros: a number, a list, or a NumPy file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.report import AdoptionError
from export.adopt.roles import Port
from export.adopt.settings import AdoptSettings

__all__ = ["start_of"]


def start_of(settings: AdoptSettings, port: Port, raw: tuple[int, ...]) -> NDArray[Any]:
    """The initial value of a state from [start], of shape [] or ``raw`` (the state's sizes at batch 1). Raises
    :class:`AdoptionError` if it does not fit."""
    given = settings.start.get(port.name, 0)
    try:
        array = np.load(given, allow_pickle=False) if isinstance(given, str) else np.asarray(given)
        if array.size == int(np.prod(raw, dtype=np.int64)) and array.ndim:
            array = array.reshape(raw)
        np.broadcast_to(array, raw)
    except OSError as error:
        raise AdoptionError(f"[start] {port.name}: can't read {given}: {error.strerror or error}") from error
    except ValueError as error:
        raise AdoptionError(f"[start] {port.name}: {error}; the state is {port}") from error
    return array if array.ndim == 0 else np.array(np.broadcast_to(array, raw))
