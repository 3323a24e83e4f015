"""Greedy CTC decoding (best path): the most probable token of every step, repeats collapsed, blanks dropped.

Graves et al. 2006, "Connectionist temporal classification", section 3.2. The last token is carried from chunk to chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.search import Checks, Steps, Unit

__all__ = ["Greedy", "GreedyState"]


@dataclass(slots=True)
class GreedyState:
    """One stream's utterance: the last step's token, and ``(token, start, end, peak log-posterior)`` of each emitted
    token.

    ``reported``: how many tokens :meth:`Greedy.units` returned last.
    """

    last: int
    tokens: list[tuple[int, int, int, float]] = field(default_factory=list)
    reported: int = -1


class Greedy:
    """Shared by all streams of a model. ``tokens``: names [V]; log-probabilities are [N, T, V].

    ``blank_penalty``: subtracted from the blank's log-probability; useful for a model that leaves out words.
    ``collapse``: consecutive equal tokens count as one (CTC); off for a transducer, which emits each token once.
    """

    def __init__(
        self,
        tokens: Sequence[str],
        blank: int,
        boundary: int | None,
        blank_penalty: float = 0.0,
        *,
        collapse: bool = True,
    ) -> None:
        self._tokens, self._blank, self._boundary = tokens, blank, boundary
        self._penalty, self._collapse = np.float32(blank_penalty), collapse

    def open(self) -> GreedyState:
        return GreedyState(self._blank)

    def weigh(self, logp: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._penalty:
            return logp
        logp = logp.copy()
        logp[:, :, self._blank] -= self._penalty
        return logp

    def busy(self, logp: NDArray[np.float32]) -> NDArray[np.bool_]:
        """No step [N, T]: a silent step emits nothing."""
        return np.zeros(logp.shape[:2], np.bool_)

    def advance(
        self,
        states: Sequence[GreedyState],
        logp: NDArray[np.float32],
        end: Steps,
        origin: Steps,
        checks: Checks,
    ) -> None:
        best = logp.argmax(axis=2)
        peaks = np.take_along_axis(logp, best[:, :, None], axis=2)[:, :, 0]
        begin = np.zeros(len(states), np.int64)
        while (begin < end).any():  # up to the rows' next endpoint checks; usually one pass
            stop = np.minimum(checks.due + 1, end)
            self._take(states, best, peaks, begin, stop, origin)
            for row in np.flatnonzero((begin < end) & (checks.due < end)).tolist():
                checks.ask(row)
            begin = stop

    def _take(
        self,
        states: Sequence[GreedyState],
        best: Steps,
        peaks: NDArray[np.float32],
        begin: Steps,
        end: Steps,
        origin: Steps,
    ) -> None:
        at = np.arange(best.shape[1])
        sounds = (best != self._blank) & (at >= begin[:, None]) & (at < end[:, None])
        rows, columns = np.nonzero(sounds)
        for row, t, token, peak in zip(
            rows.tolist(), columns.tolist(), best[sounds].tolist(), peaks[sounds].tolist(), strict=True
        ):
            state, step = states[row], int(origin[row]) + t
            previous = state.last if t == begin[row] else int(best[row, t - 1])
            if token != previous or not self._collapse:
                state.tokens.append((token, step, step, peak))
            elif state.tokens:  # a token that continues across a cut is not emitted again
                same, start, _, highest = state.tokens[-1]
                if same == token:
                    state.tokens[-1] = (same, start, step, max(highest, peak))
        for row, state in enumerate(states):
            if end[row] > begin[row]:
                state.last = int(best[row, end[row] - 1])

    def decoded(self, state: GreedyState) -> bool:
        return any(token != self._boundary for token, *_ in state.tokens)

    def news(self, state: GreedyState) -> bool:
        return len(state.tokens) != state.reported

    def units(self, state: GreedyState) -> list[Unit]:
        state.reported = len(state.tokens)
        return [Unit(self._tokens[token], start, end, logp) for token, start, end, logp in state.tokens]

    def stable(self, state: GreedyState) -> int:
        return len(state.tokens)

    def copy(self, state: GreedyState) -> GreedyState:
        return GreedyState(state.last, list(state.tokens), state.reported)

    def finish(self, state: GreedyState) -> list[Unit]:
        units = self.units(state)
        state.tokens.clear()
        state.reported = -1
        return units

    def cut(self, state: GreedyState) -> list[Unit]:
        """All tokens up to the last word boundary, or all tokens if there is none."""
        boundaries = [i for i, (token, *_) in enumerate(state.tokens) if token == self._boundary]
        keep = boundaries[-1] + 1 if boundaries else len(state.tokens)
        units = self.units(GreedyState(state.last, state.tokens[:keep]))
        del state.tokens[:keep]
        state.reported = -1
        return units

    def dump(self, state: GreedyState) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        steps = np.array([token[:3] for token in state.tokens], np.int64).reshape(-1, 3)
        return {"last": state.last}, [steps, np.array([token[3] for token in state.tokens], np.float64)]

    def restore(self, facts: dict[str, Any], arrays: list[NDArray[Any]]) -> GreedyState:
        steps, logp = arrays
        return GreedyState(
            int(facts["last"]), [(*row, p) for row, p in zip(steps.tolist(), logp.tolist(), strict=True)]
        )
