"""Endpointing: where utterances end, by three silence rules as in Kaldi and sherpa, decided step by step.

Silence is a run of steps whose most probable token is the blank (or the word boundary). All counts restart with each
utterance. The rules are checked step by step, so the place of an endpoint does not depend on the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.options import Endpoint
from streamer.tasks.transcribe.search import Search, Steps, Unit

__all__ = ["Endpoints", "Rules", "silence_runs"]

NEVER = np.iinfo(np.int64).max


class Rules(NamedTuple):
    """The rules' bounds in steps; ``NEVER`` switches a rule off."""

    silence: int
    trailing: int
    length: int

    @classmethod
    def of(cls, endpoint: Endpoint, step_seconds: float) -> Rules:
        def steps(seconds: float | None) -> int:
            return NEVER if seconds is None else max(1, round(seconds / step_seconds))

        return cls(steps(endpoint.silence), steps(endpoint.trailing), steps(endpoint.length))


def silence_runs(silent: NDArray[np.bool_], carried: NDArray[np.int64]) -> NDArray[np.int64]:
    """Length [N, T] of the silence that ends with each step, in steps. ``carried`` [N]: silent steps before the first
    one."""
    n, steps = silent.shape
    at = np.arange(steps, dtype=np.int64)
    last_sound = np.maximum.accumulate(np.where(silent, -1, at), axis=1) if steps else np.zeros((n, 0), np.int64)
    return np.where(last_sound < 0, carried[:, None] + at + 1, at - last_sound)


class Endpoints:
    """Ends the utterances of one batch (:class:`streamer.tasks.transcribe.search.Checks`).

    Only steps at which a rule may hold are checked: where a silence becomes long enough, and later steps of that
    silence that may decode something.
    """

    def __init__(
        self,
        search: Search,
        states: Sequence[Any],
        rules: Sequence[Rules],
        runs: Steps,
        busy: NDArray[np.bool_],
        spoken: Steps,
        ended: Callable[[int, int, list[Unit]], None],
    ) -> None:
        """``runs`` [N, T]: length of the silence that ends with each step. ``busy`` [N, T]: steps that may decode
        something, silent or not.

        ``spoken`` [N, T]: number of the utterance's steps up to and including each step. ``ended(row, step, units)`` is
        called for each utterance that ends; ``step`` is its last.
        """
        self._search, self._states, self._ended = search, states, ended
        self._rules = rules
        self._runs, self._busy, self._spoken = runs, busy, spoken
        run = np.minimum(runs, spoken)
        alike = all(rule == rules[0] for rule in rules[1:])  # the usual case
        held = np.array(rules[:1] if alike else rules, np.int64).reshape(-1, 3)
        holds = self._hold(run, busy, spoken, *(rule[:, None] for rule in held.T))
        self.due: Steps = np.where(holds.any(axis=1), holds.argmax(axis=1), runs.shape[1]).astype(np.int64)

    @staticmethod
    def _hold(run: Steps, busy: NDArray[np.bool_], spoken: Steps, silence: Any, trailing: Any, length: Any) -> Any:
        """The steps at which a rule may hold; the bounds are numbers or columns [N, 1]."""
        return (run == silence) | (run == trailing) | (busy & (run > trailing)) | (spoken >= length)

    def ask(self, row: int) -> bool:
        step, spoken = int(self.due[row]), self._spoken[row]
        silence, trailing, length = self._rules[row]
        state, passed = self._states[row], int(spoken[step])
        run = min(int(self._runs[row, step]), passed)
        units = None
        if run >= silence or (run >= trailing and self._search.decoded(state)):
            units = self._search.finish(state)
        elif passed >= length:
            units = self._search.cut(state)
        if units is not None:
            spoken -= passed
            self._ended(row, step, units)
        if step + 1 == len(spoken):
            self.due[row] = step + 1
            return units is not None
        after = slice(step + 1, None)
        holds = self._hold(
            np.minimum(self._runs[row, after], spoken[after]), self._busy[row, after], spoken[after],
            silence, trailing, length,
        )  # fmt: skip
        self.due[row] = step + 1 + int(holds.argmax()) if holds.any() else len(spoken)
        return units is not None
