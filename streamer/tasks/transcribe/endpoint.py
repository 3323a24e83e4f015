"""Where utterances end: three silence rules (as in Kaldi's and sherpa's online endpointing), decided step by step.

Silence is a run of steps whose most probable token is the blank (or the word boundary). All counts start anew with an
utterance. The rules look at one step at a time, so an endpoint's place does not depend on the chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.options import Endpoint

__all__ = ["Rules", "silence_runs"]

NEVER = np.iinfo(np.int64).max


class Rules(NamedTuple):
    """The rules in steps; ``NEVER`` is off."""

    silence: int
    trailing: int
    length: int

    @classmethod
    def of(cls, endpoint: Endpoint, step_seconds: float) -> Rules:
        def steps(seconds: float | None) -> int:
            return NEVER if seconds is None else max(1, round(seconds / step_seconds))

        return cls(steps(endpoint.silence), steps(endpoint.trailing), steps(endpoint.length))


def silence_runs(silent: NDArray[np.bool_], carried: NDArray[np.int64]) -> NDArray[np.int64]:
    """Length of the silence that ends with each step [N, T]. ``carried`` [N]: silent steps just before the first."""
    n, steps = silent.shape
    at = np.arange(steps, dtype=np.int64)
    last_sound = np.maximum.accumulate(np.where(silent, -1, at), axis=1) if steps else np.zeros((n, 0), np.int64)
    return np.where(last_sound < 0, carried[:, None] + at + 1, at - last_sound)
