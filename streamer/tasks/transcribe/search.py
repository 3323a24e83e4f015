"""The interface of CTC decoders, and the units that they emit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Checks", "Search", "Steps", "Unit"]

Steps = NDArray[np.int64]


class Unit(NamedTuple):
    """One output of a decoder: a word, or a token where there is no lexicon.

    ``start`` and ``end``: absolute steps at which its first and its last token appeared.
    ``logp``: mean over its tokens of the highest log-posterior each of them had.
    """

    text: str
    start: int
    end: int
    logp: float


class Checks(Protocol):
    """Ends utterances of a batch's rows while they are decoded."""

    #: The step [N] after which to call :meth:`ask` for each row; beyond its last step for never.
    due: Steps

    def ask(self, row: int) -> bool:
        """Check a row whose state has reached its step ``due``, and set the next ``due``. Returns whether the state
        was changed."""


class Search(Protocol):
    """A decoder, shared by all streams with the same settings. A stream's utterance is a *state*, opaque to others."""

    def open(self) -> Any:
        """The state of a new stream."""

    def weigh(self, logp: NDArray[np.float32]) -> NDArray[np.float32]:
        """``logp`` [N, T, V] with the decoder's penalties, for its other methods and for endpointing."""

    def busy(self, logp: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which steps [N, T] of ``logp`` [N, T, V] may change the units although they are silent."""

    def advance(
        self, states: Sequence[Any], logp: NDArray[np.float32], end: Steps, origin: Steps, checks: Checks
    ) -> None:
        """Decode the first ``end[i]`` steps of row *i* of ``logp`` [N, T, V]. ``origin[i]``: the number of the row's
        first step in the stream."""

    def decoded(self, state: Any) -> bool:
        """Whether the best hypothesis has any unit."""

    def news(self, state: Any) -> bool:
        """Whether :meth:`units` may have changed since its last call. Cheap."""

    def units(self, state: Any) -> list[Unit]:
        """The units decoded so far."""

    def stable(self, state: Any) -> int:
        """How many of these units will not change."""

    def copy(self, state: Any) -> Any:
        """An independent copy of the state."""

    def finish(self, state: Any) -> list[Unit]:
        """End the utterance and return its units. The state begins the next utterance; a token that continues across
        the end is not repeated."""

    def cut(self, state: Any) -> list[Unit]:
        """Cut an utterance that is too long: return its whole words. The rest opens the next utterance."""

    def dump(self, state: Any) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """JSON facts and arrays from which :meth:`restore` rebuilds the state bit for bit."""

    def restore(self, facts: dict[str, Any], arrays: list[NDArray[Any]]) -> Any:
        """The inverse of :meth:`dump`. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for other data."""
