"""The recipe ``characters``: a GRU that writes English, letter by letter, trained on the shared sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from models.speech.data import data_folder
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.generate.teaching import Tokens, TokenWindows, bits, info, leave, ngram_bits, teach
from models.zoo.generate.token_rnn import TokenRNN, TokenRNNConfig

#: Token 0 precedes the first letter; a newline ends a sentence.
TOKENS = ["<start>", "\n", " ", "'", *"abcdefghijklmnopqrstuvwxyz"]
MINUTES = 8.0
STEPS = 8  # letters of a chunk
BATCH, LENGTH, EPOCH = 32, 160, 200
TEXTS = {
    "data": "15,615 sentences of the LJ Speech texts and the LibriSpeech dev-clean transcripts; every twentieth block "
    "of fifty held out",
    "licence": "Apache-2.0; trained on: LJ Speech texts, public domain; LibriSpeech transcripts, CC BY 4.0",
    "description": "Writes English letter by letter: a GRU of 160 units.",
}


def encode(text: str) -> Tokens:
    """The tokens of ``text``. Raises ``ValueError`` for an unknown letter."""
    return np.array([TOKENS.index(c) for c in text.lower()], np.int64)


def corpus(path: Path | None = None) -> tuple[Tokens, Tokens]:
    """Tokens for training, and held-out ones. Raises ``FileNotFoundError`` if the shared data is missing."""
    lines = (path or data_folder() / "text" / "sentences.txt").read_text().splitlines()
    known = set("".join(TOKENS[2:]).upper())
    lines = ["".join(c for c in line if c in known) for line in lines]
    held = [line for i, line in enumerate(lines) if i // 50 % 20 == 19]
    rest = [line for i, line in enumerate(lines) if i // 50 % 20 != 19]
    return encode("\n".join(rest)), encode("\n".join(held))


def train(folder: Path, minutes: float | None = None, path: Path | None = None, steps: int = 0) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``;
    ``path``: other sentences."""
    tokens, held = corpus(path)
    torch.manual_seed(1)
    model = TokenRNN(TokenRNNConfig(len(TOKENS)))
    options = {"kind": "text", "vocabulary": len(TOKENS), "tokens": TOKENS, "temperature": 0.8}
    about = info("characters", model.columns.limits(), STEPS, options) | TEXTS
    length = min(LENGTH, len(held))
    batches = TokenWindows(tokens, BATCH, length, min(EPOCH, steps or EPOCH))
    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=4e-3, average=0.99)
    best = teach(model, batches, held, about, folder, budget, min(2048, len(held)))
    train_list, held_list = tokens.tolist(), held.tolist()
    scores = {"bits per character": bits(checkpoint.load(best)[0], held, min(2048, len(held)))}
    for order in (1, 3, 6):
        scores[f"bits per character, {order}-gram"] = ngram_bits(train_list, held_list, order, len(TOKENS))
    leave(folder, scores)
    return best
