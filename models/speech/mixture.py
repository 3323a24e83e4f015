"""Training examples drawn from a mixture of sources, augmented, and grouped into batches of similar length."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.speech.augment import Augmentation, Wave, Waveforms
from models.speech.data import Pcm, Utterance, encode
from models.speech.scenes import SpeechScenes

#: Labels of frames are indices of phones; 0 (CTC's blank) for frames without speech.
QUIET = 0
#: Label of frames of a recording without alignment.
UNKNOWN = -1

#: Seconds of an example without speech.
QUIET_SECONDS = (2.0, 12.0)

Spell = Callable[[Sequence[Utterance]], list[int]]


@dataclass
class UtteranceSource:
    """A set of utterances, and how examples are drawn from it.

    ``weight``: share of the *examples* as a function of progress (0 at the start of training, 1 at its end).
    ``joined``: smallest and largest number of utterances of one speaker that are joined into one example.
    Without utterances, examples are scenes without speech (:meth:`.scenes.SpeechScenes.nothing`).
    ``more``: returns the utterances of a source that grows during training, called before each epoch; while it returns
    none, the source has no share.
    ``gaps``: seconds between joined utterances. ``together``: probability that an example is joined.
    """

    name: str
    utterances: list[Utterance]
    weight: Callable[[float], float]
    joined: tuple[int, int] = (1, 1)
    together: float = 1.0
    gaps: tuple[float, float] = (0.05, 0.5)
    augmentation: Augmentation | None = None
    more: Callable[[], list[Utterance]] | None = None

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Update the utterances of a source that grows."""
        if self.more is not None:
            self.utterances = self.more()
        self.speakers: dict[str, list[Utterance]] = {}
        for utterance in self.utterances:
            self.speakers.setdefault(utterance.speaker, []).append(utterance)


def reshare(sources: Sequence[UtteranceSource], shares: Mapping[str, float]) -> None:
    """Give the named sources these shares of the examples, from the first one to the last; the others keep their
    proportions. Raises ``ValueError``."""
    if unknown := sorted(set(shares) - {source.name for source in sources}):
        known = ", ".join(source.name for source in sources)
        raise ValueError(f"there is no source {', '.join(unknown)}: there are {known}")
    left = 1 - sum(shares.values())
    if min(shares.values(), default=0) < 0 or left < 0:
        raise ValueError("shares are at least 0, and at most 1 together")
    others = [(source, source.weight) for source in sources if source.name not in shares]

    def scaled_share(weight: Callable[[float], float], progress: float) -> float:
        return left * weight(progress) / sum(each(progress) for _, each in others)

    for source, weight in others:
        source.weight = partial(scaled_share, weight)
    for source in sources:
        if (share := shares.get(source.name)) is not None:
            source.weight = partial(lambda share, progress: share, share)


@dataclass
class Example:
    """``targets`` and ``phones``: indices of the model's tokens, and of phones; ``frames``: one label for each whole
    10 ms."""

    pcm: Pcm
    targets: list[int]
    phones: list[int]
    frames: NDArray[np.int8]


class Targets(NamedTuple):
    """The input of CTC losses: the symbols of all rows concatenated, int64 [sum of lengths], and lengths [B]."""

    symbols: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Targets:
        return cls(
            torch.tensor([s for row in rows for s in row], dtype=torch.long), torch.tensor([len(r) for r in rows])
        )


@dataclass
class SpeechBatch:
    """``pcm``: int16 [B, N], zeros after each row's ``samples`` [B]. ``frames``: int64 [B, N / 10 ms]."""

    pcm: Tensor
    samples: Tensor
    targets: Targets
    phones: Targets
    frames: Tensor


def spell_phones(utterances: Sequence[Utterance]) -> list[int]:
    """The targets of a model whose tokens are phones."""
    return [token for u in utterances for token in encode(u.flat)]


class Mixture(torch.utils.data.IterableDataset[SpeechBatch]):
    """``batches`` batches (one Lightning epoch) of about ``seconds`` seconds of audio each.

    A pool of examples is drawn and augmented, sorted by length and split into batches, so that there is little padding.
    ``progress`` is called before each pool. ``limit``: longest example in seconds at a given progress (curriculum).
    """

    def __init__(
        self,
        sources: list[UtteranceSource],
        augmentation: Augmentation,
        noise: Pcm,
        *,
        sample_rate: int,
        hop: int,
        seconds: float,
        batches: int,
        progress: Callable[[], float],
        limit: Callable[[float], float],
        spell: Spell = spell_phones,
        seed: int = 1,
        pool: int = 6,
        hearing: type[Waveforms] = Waveforms,
    ) -> None:
        self.sources, self.sample_rate, self.hop = sources, sample_rate, hop
        self.seconds, self.batches, self.pool = seconds, batches, pool
        self.progress, self.limit, self.spell = progress, limit, spell
        self.seed, self.rng = seed, np.random.default_rng(seed)
        self.waveforms = {
            source.name: hearing(source.augmentation or augmentation, sample_rate, noise, self.rng)
            for source in sources
        }
        for waveforms in self.waveforms.values():
            if isinstance(waveforms, SpeechScenes):
                waveforms.neighbour = self._anybody

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[SpeechBatch]:
        for source in self.sources:
            source.refresh()
        if progress := self.progress():  # a resumed training must not draw its first examples again
            there = np.random.default_rng([self.seed, round(1e9 * progress)])
            self.rng.bit_generator.state = there.bit_generator.state
        given = 0
        while given < self.batches:
            for batch in self._pool(self.progress()):
                yield batch
                given += 1
                if given == self.batches:
                    return

    def _pool(self, progress: float) -> Iterator[SpeechBatch]:
        # a source that grows may still be empty
        there = [source.utterances or source.more is None for source in self.sources]
        weights = np.array([bool(any_) * s.weight(progress) for s, any_ in zip(self.sources, there, strict=True)])
        weights /= weights.sum()
        examples: list[Example] = []
        total, limit = 0.0, self.limit(progress)
        while total < self.seconds * self.pool:
            example = self.example(self.sources[int(self.rng.choice(len(weights), p=weights))], limit)
            if example is not None:
                examples.append(example)
                total += len(example.pcm) / self.sample_rate
        examples.sort(key=lambda example: len(example.pcm))
        groups: list[list[Example]] = [[]]
        for example in examples:
            if groups[-1] and (len(groups[-1]) + 1) * len(example.pcm) > self.seconds * self.sample_rate * 1.05:
                groups.append([])
            groups[-1].append(example)
        for i in self.rng.permutation(len(groups)):
            if len(groups[i]) > 1:  # batch norm needs two rows
                yield collate(groups[i], self.hop, self.sample_rate // 100)

    def _anybody(self) -> Wave:
        spoken = [source for source in self.sources if source.utterances]
        utterances = spoken[int(self.rng.integers(len(spoken)))].utterances
        return scaled(utterances[int(self.rng.integers(len(utterances)))].pcm)

    def example(self, source: UtteranceSource, limit: float = math.inf) -> Example | None:
        """A random example; ``None`` if it is longer than ``limit`` seconds, in most cases before any augmentation."""
        rng, waveforms = self.rng, self.waveforms[source.name]
        if not source.utterances:
            assert isinstance(waveforms, SpeechScenes)
            pcm = waveforms.nothing(min(limit, float(rng.uniform(*QUIET_SECONDS))))
            return Example(pcm, [], [], np.full(len(pcm) // (self.sample_rate // 100), QUIET, np.int8))
        first = source.utterances[int(rng.integers(len(source.utterances)))]
        chosen = [first]
        if rng.random() < source.together:
            company = source.speakers[first.speaker]
            more = int(rng.integers(source.joined[0], source.joined[1] + 1)) - 1
            chosen += [company[int(rng.integers(len(company)))] for _ in range(more)]
        options = waveforms.options
        speed = float(rng.uniform(*options.speeds)) if rng.random() < options.speed else 1.0
        if sum(u.samples for u in chosen) / speed > limit * self.sample_rate:
            return None
        waves = [waveforms.respeed(scaled(u.pcm), speed) for u in chosen]
        wave, starts = waveforms.join(waves, source.gaps)
        pcm, before = waveforms.room(wave)
        if len(pcm) > limit * self.sample_rate:
            return None
        frame = self.sample_rate // 100
        frames = np.full(len(pcm) // frame, QUIET, np.int8)
        for utterance, start, sound in zip(chosen, starts, waves, strict=True):
            label(frames, utterance, (start + before) / frame, len(sound) / frame, speed)
        return Example(pcm, self.spell(chosen), spell_phones(chosen), frames)


def scaled(pcm: Pcm) -> Wave:
    return pcm.astype(np.float32) / np.float32(32768.0)


def label(frames: NDArray[np.int8], utterance: Utterance, start: float, length: float, speed: float) -> None:
    """Write the labels of an utterance into ``frames``. ``start`` and ``length``: its place, in frames; ``speed``: the
    factor by which it was sped up."""
    if not utterance.segments:
        frames[int(start) : int(start + length) + 1] = UNKNOWN
        return
    for (first, behind), phone in zip(utterance.segments, encode(utterance.flat), strict=True):
        frames[round(start + first / speed) : round(start + behind / speed)] = phone


def collate(examples: Sequence[Example], hop: int, frame: int) -> SpeechBatch:
    """A batch of ``examples``, padded to a multiple of ``hop``, the samples of a step; ``frame``: samples of 10 ms."""
    samples = [len(example.pcm) for example in examples]
    width = -(-max(samples) // hop) * hop
    pcm = np.zeros((len(examples), width), np.int16)
    frames = np.full((len(examples), width // frame), UNKNOWN, np.int64)
    for row, labels, example in zip(pcm, frames, examples, strict=True):
        row[: len(example.pcm)] = example.pcm
        labels[: len(example.frames)] = example.frames
    return SpeechBatch(
        torch.from_numpy(pcm),
        torch.tensor(samples),
        Targets.of([example.targets for example in examples]),
        Targets.of([example.phones for example in examples]),
        torch.from_numpy(frames),
    )
