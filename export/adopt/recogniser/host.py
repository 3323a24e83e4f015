"""The reference host of a recogniser, in NumPy around the original files: features, windows, calls, search."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.adopt.batch import back
from export.adopt.graph import constants
from export.adopt.read import Foreign
from export.adopt.recogniser.assemble import NEVER, Recogniser

__all__ = ["drive"]


def drive(recogniser: Recogniser, original: Foreign, chunks: NDArray[np.int16]) -> NDArray[np.float32]:
    """Run ``chunks`` [n, 1, samples] of one stream from its start. Returns log-probabilities [n, 1, steps, ...].

    ``original``: the encoder's unchanged file.
    """
    kind, part = recogniser.kind, recogniser.settled.part
    features = _features(recogniser, chunks.reshape(-1))
    session = original.session()
    names = [output.name for output in session.get_outputs()]
    ours = [memory for memory in part.memories if memory.out is not None]
    state = {memory.name: memory.first() for memory in ours}
    history = None if recogniser.search is None else recogniser.search.start[None]
    blanks = np.full((1, recogniser.steps, recogniser.size), NEVER, np.float32)
    blanks[:, :, recogniser.tokens.blank] = 0
    rows = [blanks] * min(recogniser.held, len(chunks))
    for call in range(len(chunks) - len(rows)):
        window = features[call * kind.shift :][: kind.window]
        x = part.stream.layout.inward(window[None]).reshape(part.stream.layout.raw_at(1))
        feeds: dict[str, Any] = {part.stream.name: x, **constants(part), **state, **kind.given(call)}
        got = dict(zip(names, session.run(names, feeds), strict=True))
        state = {memory.name: back(memory, state[memory.name], got) for memory in ours}
        result = recogniser.settled.layout(recogniser.result).outward(got[recogniser.result])
        if recogniser.search is not None and history is not None:
            result, history = recogniser.search.run(result, history)
        rows.append(result)
    shape = (1, recogniser.steps, *(() if recogniser.search is None else (1,)), recogniser.size)
    return np.stack([row.reshape(shape) for row in rows])


def _features(recogniser: Recogniser, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """Features [rows, bins] of the sound; with ``early``, of silence and the sound, since the first window begins
    ``window - shift + 1`` rows before the sound."""
    frontend, kind = recogniser.frontend, recogniser.kind
    if not recogniser.early:
        return frontend.features(pcm)
    rows = kind.window - kind.shift + 1
    return frontend.features(np.concatenate([np.zeros(rows * frontend.shift, pcm.dtype), pcm]))
