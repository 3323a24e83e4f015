"""Training examples drawn from a mixture of sources, augmented, and gathered into batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.augment import Augmentation, Wave, Waveforms
from models.data import Pcm, Utterance, encode


@dataclass
class Source:
    """A set of utterances and how examples are made of it.

    ``weight``: share of the *examples* as a function of progress (0 at the start of training, 1 at its end).
    ``joined``: smallest and largest number of utterances of one speaker that are joined into one example.
    ``gaps``: seconds between joined ones. ``together``: the chance that an example is a joined one.
    """

    name: str
    utterances: list[Utterance]
    weight: Callable[[float], float]
    joined: tuple[int, int] = (1, 1)
    together: float = 1.0
    gaps: tuple[float, float] = (0.05, 0.5)
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        self.speakers: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            self.speakers.setdefault(utterance.speaker, []).append(utterance)


@dataclass
class Batch:
    pcm: Tensor  # int16 [B, N], zeros behind each row's end
    samples: Tensor  # int64 [B], real samples of each row
    targets: Tensor  # int64 [sum of target lengths]
    lengths: Tensor  # int64 [B]


class Mixture(torch.utils.data.IterableDataset[Batch]):
    """``batches`` batches (one Lightning epoch) of about ``seconds`` seconds of audio each.

    A pool of examples is drawn and augmented, sorted by length and cut into batches, so that little is padding.
    ``progress`` is asked before each pool. ``limit``: longest example in seconds at a given progress (curriculum).
    """

    def __init__(
        self,
        sources: list[Source],
        augmentation: Augmentation,
        noise: Pcm,
        *,
        sample_rate: int,
        hop: int,
        seconds: float,
        batches: int,
        progress: Callable[[], float],
        limit: Callable[[float], float],
        seed: int = 1,
        pool: int = 6,
    ) -> None:
        self.sources, self.sample_rate, self.hop = sources, sample_rate, hop
        self.seconds, self.batches, self.pool = seconds, batches, pool
        self.progress, self.limit = progress, limit
        self.rng = np.random.default_rng(seed)
        self.waveforms = {
            source.name: Waveforms(source.augmentation or augmentation, sample_rate, noise, self.rng)
            for source in sources
        }

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        given = 0
        while given < self.batches:
            for batch in self._pool(self.progress()):
                yield batch
                given += 1
                if given == self.batches:
                    return

    def _pool(self, progress: float) -> Iterator[Batch]:
        weights = np.array([source.weight(progress) for source in self.sources])
        weights /= weights.sum()
        examples: list[tuple[Pcm, list[int]]] = []
        total, limit = 0.0, self.limit(progress)
        while total < self.seconds * self.pool:
            example = self.example(self.sources[int(self.rng.choice(len(weights), p=weights))])
            seconds = len(example[0]) / self.sample_rate
            if seconds <= limit:
                examples.append(example)
                total += seconds
        examples.sort(key=lambda example: len(example[0]))
        groups: list[list[tuple[Pcm, list[int]]]] = [[]]
        for pcm, tokens in examples:
            if groups[-1] and (len(groups[-1]) + 1) * len(pcm) > self.seconds * self.sample_rate * 1.05:
                groups.append([])
            groups[-1].append((pcm, tokens))
        for i in self.rng.permutation(len(groups)):
            if len(groups[i]) > 1:  # batch norm needs company
                yield collate(groups[i], self.hop)

    def example(self, source: Source) -> tuple[Pcm, list[int]]:
        """One augmented example and its tokens."""
        rng, waveforms = self.rng, self.waveforms[source.name]
        first = source.utterances[int(rng.integers(len(source.utterances)))]
        chosen = [first]
        if rng.random() < source.together:
            company = source.speakers[first.speaker]
            more = int(rng.integers(source.joined[0], source.joined[1] + 1)) - 1
            chosen += [company[int(rng.integers(len(company)))] for _ in range(more)]
        options = waveforms.options
        speed = float(rng.uniform(*options.speeds)) if rng.random() < options.speed else 1.0
        waves = [waveforms.respeed(scaled(u.pcm), speed) for u in chosen]
        wave = waves[0] if len(waves) == 1 else waveforms.join(waves, source.gaps)
        return waveforms.room(wave), [token for u in chosen for token in encode(u.flat)]


def scaled(pcm: Pcm) -> Wave:
    return pcm.astype(np.float32) / np.float32(32768.0)


def collate(examples: list[tuple[Pcm, list[int]]], hop: int) -> Batch:
    samples = [len(pcm) for pcm, _ in examples]
    width = -(-max(samples) // hop) * hop
    pcm = np.zeros((len(examples), width), np.int16)
    for row, (wave, _) in zip(pcm, examples, strict=True):
        row[: len(wave)] = wave
    return Batch(
        torch.from_numpy(pcm),
        torch.tensor(samples),
        torch.tensor([token for _, tokens in examples for token in tokens]),
        torch.tensor([len(tokens) for _, tokens in examples]),
    )
