"""The recipe ``music``: a GRU that plays, after pieces that a small grammar of chords and melodies makes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.generate.teaching import Tokens, TokenWindows, bits, info, leave, ngram_bits, teach
from models.zoo.generate.token_rnn import TokenRNN, TokenRNNConfig

LOWEST, HIGHEST = 40, 84
WAITS = (1, 2, 3, 4)
#: Token 0 is what stands before a piece.
TOKENS = [
    "<start>",
    *(f"{what}:{pitch}" for what in ("on", "off") for pitch in range(LOWEST, HIGHEST + 1)),
    *(f"wait:{ticks}" for ticks in WAITS),
]
CODES = {token: code for code, token in enumerate(TOKENS)}
TICKS_PER_SECOND = 4.0  # a tick is an eighth note at 120 quarters a minute
MINUTES = 3.0
STEPS = 8
PIECES, HELD, BATCH, LENGTH, EPOCH = 400, 20, 24, 192, 100
#: Which chords follow which, as steps of the major scale; a piece begins and ends with the first.
FOLLOWS = {0: (3, 4, 5, 1), 1: (4, 3), 3: (4, 0, 1), 4: (0, 5, 0), 5: (3, 1)}
SCALE = (0, 2, 4, 5, 7, 9, 11)
TEXTS = {
    "data": f"{PIECES} pieces made by a grammar of chords and melodies in five keys; {HELD} more held out",
    "licence": "Apache-2.0",
    "description": "Plays chords with a melody, as note events: a GRU of 128 units.",
}


def piece(rng: random.Random) -> list[str]:
    """Sixteen bars of four quarters: a chord below, a melody above that comes to the chord's notes on the beat."""
    key = rng.choice((48, 50, 53, 55, 45))
    chords = [0]
    while len(chords) < 15:
        chords.append(rng.choice(FOLLOWS[chords[-1]]))
    chords.append(0)
    rhythms = ((2, 2, 2, 2), (1, 1, 2, 2, 2), (2, 1, 1, 4), (4, 2, 2), (3, 1, 4))
    motif = [rng.choice(rhythms) for _ in range(2)]
    step, events = 10, []
    for bar, root in enumerate(chords):
        triad = [_pitch(key, root + third) for third in (0, 2, 4)]
        events += [f"on:{pitch}" for pitch in triad]
        rhythm = (8,) if bar == 15 else motif[bar % 2]
        beat = 0
        for length in rhythm:
            step = max(10, min(17, step + rng.choice((-2, -1, -1, 0, 1, 1, 2))))
            if beat % 4 == 0:  # to the nearest note of the chord
                step = min((s for s in range(10, 18) if (s - root) % 7 in (0, 2, 4)), key=lambda s: abs(s - step))
            pitch = _pitch(key, step)
            waits = [f"wait:{min(4, length - start)}" for start in range(0, length, 4)]
            events += [f"on:{pitch}", *waits, f"off:{pitch}"]
            beat += length
        events += [f"off:{pitch}" for pitch in triad]
    return events


def _pitch(key: int, step: int) -> int:
    return key + 12 * (step // 7) + SCALE[step % 7]


def corpus(pieces: int, seed: int) -> tuple[Tokens, Tokens]:
    """Tokens of pieces one after another, and where each begins."""
    rng = random.Random(seed)
    parts = [[CODES[token] for token in piece(rng)] for _ in range(pieces)]
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    return np.array([code for part in parts for code in part], np.int64), starts


def train(folder: Path, minutes: float | None = None, steps: int = 0) -> Path:
    """``steps``: a budget in batches instead."""
    (tokens, starts), (held, _) = corpus(PIECES, 1), corpus(HELD, 2)
    torch.manual_seed(1)
    model = TokenRNN(TokenRNNConfig(len(TOKENS), 128))
    options = {
        "kind": "notes", "vocabulary": len(TOKENS), "tokens": TOKENS, "temperature": 0.9,
        "ticks_per_second": TICKS_PER_SECOND,
    }  # fmt: skip
    about = info("music", model.columns.limits(), STEPS, options) | TEXTS
    batches = TokenWindows(tokens, BATCH, LENGTH, min(EPOCH, steps or EPOCH), starts)
    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=4e-3, average=0.99)
    length = min(1024, len(held))
    best = teach(model, batches, held, about, folder, budget, length)
    scores = {"bits per event": bits(checkpoint.load(best)[0], held, length)}
    for order in (1, 3, 6):
        scores[f"bits per event, {order}-gram"] = ngram_bits(tokens.tolist(), held.tolist(), order, len(TOKENS))
    leave(folder, scores)
    return best
