"""Initial values of states other than zeros: a number, a list, or a NumPy file."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.report import AdoptionError
from export.adopt.roles import Port
from export.adopt.settings import AdoptSettings

__all__ = ["overlap_start", "start_of"]


def start_of(settings: AdoptSettings, port: Port, raw: tuple[int, ...]) -> NDArray[Any]:
    """The initial value of a state from [start], of shape [] or ``raw`` (the state's sizes at batch 1). Raises
    :class:`AdoptionError` if it does not fit."""
    given = settings.start.get(port.name, 0)
    array = _loaded(port.name, given) if isinstance(given, str) else np.asarray(given)
    size = int(np.prod(raw, dtype=np.int64))
    if array.ndim == 0:
        return array
    if array.size == size:
        return array.reshape(raw)
    try:
        return np.array(np.broadcast_to(array, raw))
    except ValueError:
        what = f"the array in {given} is {list(array.shape)}" if isinstance(given, str) else f"{array.size} numbers"
        raise AdoptionError(
            f"[start] {port.name}: {what}, and the state is {port}: give {size} numbers in the order of memory, or one "
            "for all of them"
        ) from None


def overlap_start(settings: AdoptSettings, name: str) -> float:
    """The number with which the overlap of the stream ``name`` starts. Raises :class:`AdoptionError` for several."""
    given = settings.start.get(name, 0)
    if isinstance(given, str | list):
        raise AdoptionError(f"[start] {name}: the overlap of the stream starts with one number: say {name} = 0.0")
    return float(given)


def _loaded(name: str, path: str) -> NDArray[Any]:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise AdoptionError(f"[start] {name}: can't read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError):  # of another format
        array = None
    if isinstance(array, np.lib.npyio.NpzFile):
        array.close()
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise AdoptionError(f"[start] {name}: {path} holds no array of numbers: write it with numpy.save")
    return array
