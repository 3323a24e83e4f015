"""Log-probabilities of whole recordings from an exported file, as in a daemon's streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.speech.data import Pcm
from streamer.engine.model import Model

__all__ = ["posteriors"]


def posteriors(model: Model, recordings: Sequence[Pcm], batch: int = 16) -> list[NDArray[np.float32]]:
    """[T, V] of each recording (int16 [N] at the model's rate), each a new stream, with the file's flush."""
    manifest = model.manifest
    name, chunk, output = manifest.input.name, manifest.chunk, manifest.outputs[0].name
    found: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(recordings)
    order = sorted(range(len(recordings)), key=lambda i: len(recordings[i]))
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        steps = [-(-len(recordings[i]) // manifest.hop) + manifest.flush for i in rows]
        chunks = -(-max(steps) // manifest.steps)
        pcm = np.zeros((len(rows), chunks * chunk), np.int16)
        for row, i in zip(pcm, rows, strict=True):
            row[: len(recordings[i])] = recordings[i]
        state, said = model.zero_state(len(rows)), []
        for at in range(chunks):
            out = model.run({name: pcm[:, at * chunk : (at + 1) * chunk], **state})
            state = {s.in_: out[s.out] for s in manifest.states}
            said.append(out[output])
        whole = np.concatenate(said, axis=1)
        for row, i, count in zip(whole, rows, steps, strict=True):
            found[i] = row[:count].copy()
    return found
