"""States of a model after seconds without speech, from which some training examples start.

In a long silence the cells of an LSTM may drift to values that no recording of speech reaches, and the speech after it
is recognised worse. Examples that start from such states prevent that.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.layers import State
from models.speech.acoustic import Acoustic

__all__ = ["begun", "rest"]

#: Standard deviation of each noise, in units of int16; 0.5: dither of one bit.
LEVELS = (0.0, 0.5, 10.0, 100.0)
#: Seconds between two states that are kept.
PIECE = 4.0


@torch.no_grad()
def rest(model: Acoustic, seconds: float, rng: np.random.Generator) -> list[State]:
    """States [len(LEVELS), ...] of the whole model in evaluation mode, one after every :data:`PIECE` seconds of noise
    at each of :data:`LEVELS`, for ``seconds``."""
    training = model.training
    model.eval()
    size = round(PIECE * model.sample_rate) // model.block * model.block
    levels = np.array(LEVELS)[:, None]
    state, found = model.initial_state(len(LEVELS)), []
    for _ in range(max(1, round(seconds / PIECE))):
        noise = np.floor(rng.standard_normal((len(LEVELS), size)) * levels * 2 + 0.5).clip(-32768, 32767)
        _, state = model(torch.from_numpy(noise.astype(np.int16)), state)
        found.append(state)
    model.train(training)
    return found


def begun(state: State, kept: list[State], share: float, rng: np.random.Generator) -> tuple[State, Tensor]:
    """``state`` [B, ...] with a random ``share`` of its rows replaced by rows of ``kept``, and the replaced rows, bool
    [B]."""
    rows = len(next(iter(state.values())))
    taken = rng.random(rows) < share
    state = {name: value.clone() for name, value in state.items()}
    for row in np.flatnonzero(taken):
        one = kept[int(rng.integers(len(kept)))]
        source = int(rng.integers(len(LEVELS)))
        for name, value in state.items():
            value[row] = one[name][source]
    return state, torch.from_numpy(taken)
