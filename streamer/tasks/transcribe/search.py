"""What every CTC decoder offers the task, and the units that it puts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Checks", "Search", "Steps", "Unit"]

Steps = NDArray[np.int64]


class Unit(NamedTuple):
    """One thing a decoder put out: a word, or a token where there is no lexicon.

    ``start`` and ``end``: absolute steps at which its first and its last token appeared.
    ``logp``: mean over its tokens of the highest log-posterior each of them had.
    """

    text: str
    start: int
    end: int
    logp: float


class Checks(Protocol):
    """What may happen to the rows of a batch while they are decoded: an utterance ends."""

    #: The step [N] after which each row must be asked next; beyond its last step, or later, for never.
    due: Steps

    def ask(self, row: int) -> bool:
        """The row's state is that after its step ``due``: whether it was changed. ``due`` becomes the next."""


class Search(Protocol):
    """A decoder, shared by all streams with the same settings. A stream's utterance is a *state*, opaque to others."""

    def open(self) -> Any:
        """The state of a stream that begins."""

    def weigh(self, logp: NDArray[np.float32]) -> NDArray[np.float32]:
        """``logp`` [N, T, V] as the other calls and the endpoints' silence shall see it."""

    def busy(self, logp: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which steps [N, T] of ``logp`` [N, T, V] may change the units although they are silent."""

    def advance(
        self, states: Sequence[Any], logp: NDArray[np.float32], end: Steps, origin: Steps, checks: Checks
    ) -> None:
        """The first ``end[i]`` steps of row *i* of ``logp`` [N, T, V]; its step 0 is the stream's ``origin[i]``th."""

    def decoded(self, state: Any) -> bool:
        """Whether the best hypothesis holds anything."""

    def news(self, state: Any) -> bool:
        """Whether the texts of :meth:`units` may be others than when they were asked for last. Costs nothing."""

    def units(self, state: Any) -> list[Unit]:
        """What is decoded now."""

    def stable(self, state: Any) -> int:
        """How many of these units will not change."""

    def copy(self, state: Any) -> Any:
        """The same state once more; what happens to one does not happen to the other."""

    def finish(self, state: Any) -> list[Unit]:
        """The utterance is over: its units. The state begins the next; a token that goes on is not repeated."""

    def cut(self, state: Any) -> list[Unit]:
        """The utterance is too long: its whole words. What follows them opens the next utterance."""

    def dump(self, state: Any) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """JSON facts and arrays from which :meth:`restore` makes the state again, bit for bit."""

    def restore(self, facts: dict[str, Any], arrays: list[NDArray[Any]]) -> Any:
        """The inverse of :meth:`dump`. Raises ``ValueError``, ``KeyError`` or ``TypeError`` on anybody else's data."""
