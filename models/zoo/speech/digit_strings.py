"""Spoken digits for small recognisers of ten words: recordings, a pool of training batches, word error rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from models.shipped.speech import LEFT_OUT, LICENCE, aligned_train
from models.speech import data, synthetic
from models.speech.augment import Augmentation
from models.speech.cut import cut_words
from models.speech.data import DIGITS, Pcm, Utterance
from models.speech.decoding import SpeechScore, transcriber
from models.speech.decoding import score as by_words
from models.speech.mixture import Mixture, SpeechBatch, UtteranceSource
from models.training.recipe import dev_speakers
from models.training.score import log_probs
from streamer.tasks.transcribe.task import decode_all

__all__ = ["INFO", "RATE", "TOKENS", "DigitPool", "joined", "score", "spell", "spoken", "test_sets"]

RATE, HOP = 8000, 320
TOKENS = ["<blank>", *(word.lower() for word in DIGITS)]
CHUNK = 8 * HOP  # 320 ms
#: Seconds of a batch and number of batches, which are made once and reused: making costs more than training.
SECONDS, POOL = 30.0, 200
INFO: dict[str, Any] = {
    "task": "transcribe",
    "tokens": TOKENS,
    "units": "words",
    "sample_rate": RATE,
    "hop": HOP,
    "input": {"name": "pcm", "dtype": "int16", "chunk_shape": [CHUNK], "sample_rate": RATE},
    "flush_seconds": 0.4,
    "data": "speechocean762 train without development speakers, its digits also cut out and joined anew; FSDD without "
    f"speaker {LEFT_OUT} joined into strings; espeak-ng and flite digit strings",
    "licence": LICENCE + "; Free Spoken Digit Dataset: CC BY-SA 4.0",
}
AUGMENTATION = Augmentation(speeds=(0.85, 1.2), speed=0.5, noise=0.4, reverb=0.2, time_masks=0, after=(0.2, 0.8))


def spell(utterances: Sequence[Utterance]) -> list[int]:
    return [TOKENS.index(word.lower()) for u in utterances for word in u.text.split()]


def spoken() -> tuple[list[UtteranceSource], list[Utterance]]:
    """Training data, and digit strings of held-out speakers. Raises ``FileNotFoundError`` without the shared data."""
    corpus = aligned_train(RATE)
    spelling = sorted({u.speaker for u in corpus if u.is_digits})
    train, dev = data.by_speaker(corpus, sorted({*dev_speakers(corpus, 3, 2), *spelling[2::5]}))
    takes = [u for u in data.fsdd(RATE) if u.speaker != LEFT_OUT]

    def always(weight: float) -> Callable[[float], float]:
        return lambda progress: weight

    sources = [
        UtteranceSource("strings", [u for u in train if u.is_digits], always(0.15), joined=(1, 2)),
        UtteranceSource("words", cut_words(train, DIGITS, RATE), always(0.25), joined=(2, 6), gaps=(0.0, 0.8)),
        UtteranceSource("takes", takes, always(0.3), joined=(1, 7), gaps=(0.0, 0.8)),
        UtteranceSource("flite", synthetic.flite_digits(2000, RATE), always(0.1)),
        UtteranceSource("espeak", synthetic.digit_strings(4000, RATE), always(0.2)),
    ]
    return sources, [u for u in dev if u.is_digits]


class DigitPool(torch.utils.data.IterableDataset[SpeechBatch]):
    """``count`` batches of about ``seconds`` s, made once; each epoch has ``epoch`` of them in random order."""

    def __init__(
        self, sources: list[UtteranceSource], noise: Pcm, count: int = POOL, seconds: float = SECONDS, epoch: int = 0
    ) -> None:
        mixture = Mixture(
            sources, AUGMENTATION, noise, sample_rate=RATE, hop=HOP, seconds=seconds, batches=count,
            progress=lambda: 0.0, limit=lambda progress: 8.0, spell=spell,
        )  # fmt: skip
        self.batches = list(mixture)
        self.epoch = epoch or count
        self.rng = np.random.default_rng(1)

    def __iter__(self) -> Iterator[SpeechBatch]:
        for i in self.rng.permutation(len(self.batches))[: self.epoch]:
            yield self.batches[i]


def joined(takes: Sequence[Utterance], length: int = 5) -> list[Utterance]:
    """Single digits of one speaker joined into strings of ``length``, with pauses; always the same."""
    rng = np.random.default_rng(7)
    order, out = rng.permutation(len(takes)), []
    for i in range(0, len(order) - length + 1, length):
        parts = [takes[int(k)] for k in order[i : i + length]]
        pauses = [np.zeros(int(rng.uniform(0.05, 0.4) * RATE), np.int16) for _ in parts]
        pcm = np.concatenate([piece for part, pause in zip(parts, pauses, strict=True) for piece in (pause, part.pcm)])
        text = " ".join(part.text for part in parts)
        out.append(Utterance(f"joined{i}", parts[0].speaker, text, [], 0, pcm))
    return out


def test_sets() -> dict[str, list[Utterance]]:
    """Held-out speakers: connected digits of speechocean762's test part, and five joined digits of FSDD's held-out
    speaker."""
    return {
        "speechocean762": [u for u in data.speechocean("test", RATE) if u.is_digits],
        "FSDD": joined([u for u in data.fsdd(RATE) if u.speaker == LEFT_OUT]),
    }


def score(model: Any, utterances: Sequence[Utterance]) -> SpeechScore:
    """Word error rate with the daemon's decoder; the silence after a recording is longer by the model's latency."""
    symbols = {"symbols": model.config.symbols} if hasattr(model.config, "symbols") else {}
    task = transcriber({**INFO, **symbols, "name": "digits"}, None)
    flush = INFO["flush_seconds"] + model.latency / RATE
    return by_words(utterances, decode_all(task, log_probs(model, [u.pcm for u in utterances], flush=flush)))
