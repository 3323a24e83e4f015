"""Error rates: edit distance over lists of symbols, greedy decoding while a model trains, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.speech.acoustic import Acoustic
from models.speech.data import TOKENS, Pcm, Utterance


def edits(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Levenshtein distance."""
    row = list(range(len(hypothesis) + 1))
    for i, symbol in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(hypothesis, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (symbol != other))
    return row[-1]


def greedy(log_probs: NDArray[np.float32], tokens: Sequence[str] = TOKENS) -> list[str]:
    """[T, V] -> symbols of the best path: repeats collapsed, blanks dropped."""
    best = log_probs.argmax(axis=1)
    return [tokens[k] for i, k in enumerate(best) if k and (i == 0 or k != best[i - 1])]


@torch.no_grad()
def log_probs(
    model: Acoustic, recordings: Sequence[Pcm], *, flush: float = 0.4, seconds: float = 60.0
) -> list[NDArray[np.float32]]:
    """[T, V] of each recording, each a new stream. ``flush``: seconds of silence after it, for the model's latency.
    ``seconds``: of audio in a batch, at most."""
    order = sorted(range(len(recordings)), key=lambda i: len(recordings[i]))
    tail, limit = int(flush * model.sample_rate), int(seconds * model.sample_rate)
    out: list[NDArray[np.float32]] = [np.zeros((0, 0), np.float32)] * len(recordings)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop - start + 1) * (len(recordings[order[stop]]) + tail) < limit:
            stop += 1
        group = order[start:stop]
        steps = [-(-(len(recordings[i]) + tail) // model.hop) for i in group]
        pcm = np.zeros((len(group), max(steps) * model.hop), np.int16)
        for row, i in zip(pcm, group, strict=True):
            row[: len(recordings[i])] = recordings[i]
        y, _ = model(torch.from_numpy(pcm), model.initial_state(len(group)))
        for row, i, count in zip(y.numpy(), group, steps, strict=True):
            out[i] = row[:count].copy()
        start = stop
    return out


def token_error(
    model: Acoustic, utterances: Sequence[Utterance], said: Sequence[Sequence[int]], tokens: Sequence[str] = TOKENS
) -> float:
    """Error rate of greedy decoding, in the model's tokens; ``said``: the token indices of each utterance."""
    rows = log_probs(model, [u.pcm for u in utterances])
    wrong = sum(
        edits([tokens[k] for k in symbols], greedy(row, tokens)) for symbols, row in zip(said, rows, strict=True)
    )
    return wrong / max(1, sum(map(len, said)))


def bootstrap(
    wrong: Sequence[int], words: Sequence[int], groups: Sequence[str], rounds: int = 2000
) -> tuple[float, float]:
    """95 % interval of an error rate, by a bootstrap over speakers (Bisani and Ney 2004). ``wrong`` and ``words``: of
    each recording, ``groups``: its speaker."""
    names = sorted(set(groups))
    place = {name: i for i, name in enumerate(names)}
    errors, counts = np.zeros(len(names)), np.zeros(len(names))
    for e, n, group in zip(wrong, words, groups, strict=True):
        errors[place[group]] += e
        counts[place[group]] += n
    draws = np.random.default_rng(0).integers(len(names), size=(rounds, len(names)))
    rates = errors[draws].sum(1) / np.maximum(1, counts[draws].sum(1))
    low, high = np.quantile(rates, (0.025, 0.975))
    return float(low), float(high)
