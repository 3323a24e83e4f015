"""The recipe ``keyword``: detects the ten digits in running speech, with one event for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.shipped.speech import LEFT_OUT, aligned_train
from models.speech import data
from models.speech.augment import Wave, change_speed
from models.speech.cut import cut_words
from models.speech.data import DIGITS, Pcm, Utterance
from models.speech.noises import Noises, mixed
from models.speech.synthetic import digit_strings
from models.training import checkpoint
from models.training.budget import Budget
from models.training.recipe import dev_speakers
from models.zoo.generate.teaching import leave
from models.zoo.speech.audio_classifier import AudioClassifier, AudioClassifierConfig
from models.zoo.speech.framewise import IGNORED, Batches, teach
from models.zoo.speech.vad import HEARD, active
from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks.classify import Classify, Segment

RATE = 16000
FRAME, HOP = RATE // 100, RATE // 25
CHUNK_STEPS = 4  # 160 ms
MINUTES, SECONDS, BATCH, EPOCH = 28.0, 8.0, 16, 60
LABELS = ["other", *(word.lower() for word in DIGITS)]
#: A word's label is on the steps that end between these numbers of frames of 10 ms after its end.
FROM, UNTIL = -2, 20
OPTIONS: dict[str, Any] = {
    "mode": "running",
    "labels": LABELS,
    "quiet": ["other"],
    "segments": {"on": 0.6, "off": 0.3, "minimum": 0.08, "hangover": 0.2},
    "delay_steps": 6,
}
SOURCE = {
    "name": "pcm",
    "dtype": "int16",
    "chunk_shape": [CHUNK_STEPS * HOP],
    "sample_rate": RATE,
    "lowest_rate": 8000,
}
INFO = {
    "name": "keyword",
    "task": "classify",
    "hop": HOP,
    "flush": 8,
    "input": SOURCE,
    "options": OPTIONS,
    "description": "Names the digits zero to nine in running speech. Log-mel, two convolutions, a GRU of 64 units.",
    "data": "speechocean762 train, its digits also cut out; FSDD without its speaker "
    f"{LEFT_OUT}; single digits by espeak-ng; among a kitchen, hum, tones, clicks and coloured noise",
    "licence": "Apache-2.0; trained on speechocean762: free for commercial and non-commercial purposes; Free Spoken "
    "Digit Dataset: CC BY-SA 4.0; kitchen noise: Apache-2.0",
}


class Clip(NamedTuple):
    """A recording, and its keywords: (label, first frame of 10 ms, the frame after its last)."""

    pcm: Pcm
    words: list[tuple[int, int, int]]


def isolated(utterance: Utterance) -> Clip:
    """The clip of a recording of one digit; the word is the loud part."""
    frames = np.flatnonzero(active(np.asarray(utterance.pcm, np.float32) / 32768))
    first, behind = (int(frames[0]), int(frames[-1]) + 1) if len(frames) else (0, len(utterance.pcm) // FRAME)
    return Clip(utterance.pcm, [(1 + DIGITS.index(utterance.text), first, behind)])


def sentence(utterance: Utterance) -> Clip:
    """The clip of an aligned recording."""
    words, last = [], 0
    for word, phones in zip(utterance.text.split(), utterance.phones, strict=True):
        first, last = last, last + len(phones)
        if word in DIGITS:
            words.append((1 + DIGITS.index(word), utterance.segments[first][0], utterance.segments[last - 1][1]))
    return Clip(utterance.pcm, words)


class KeywordStreams:
    """Random streams of sentences and digits, ``share`` of them digits, in noise."""

    def __init__(
        self, sentences: Sequence[Clip], digits: Sequence[Sequence[Clip]], noises: Noises, seed: int, share: float = 0.7
    ) -> None:
        self.sentences, self.digits, self.noises, self.share = sentences, [d for d in digits if d], noises, share
        self.rng = np.random.default_rng(seed)

    def draw(self, seconds: float) -> tuple[Pcm, NDArray[np.int64]]:
        """The samples of a stream of ``seconds``, and a label for each step."""
        rng, steps = self.rng, int(seconds * RATE) // HOP
        wave, frames = np.zeros(steps * HOP, np.float32), np.zeros(4 * steps, np.int64)
        at = int(rng.uniform(0, 0.5) * 100)
        while at < len(frames):
            clip, speed = self._clip(), 1.0
            part = np.asarray(clip.pcm, np.float32) / 32768
            if rng.random() < 0.6:
                speed = float(rng.uniform(0.85, 1.2))
                part = change_speed(part, speed, RATE)
            part *= np.float32(rng.uniform(0.3, 0.9) / (float(np.abs(part).max()) + 1e-6))
            into = wave[at * FRAME : at * FRAME + len(part)]
            into += part[: len(into)]
            for label, first, behind in clip.words:
                mark(frames, label, at + round(first / speed), at + round(behind / speed))
            at += len(part) // FRAME + int(rng.exponential(0.15) * 100)
        # a step has the label of its last frame
        return mixed(wave, self.noises, rng, RATE, snr=(0.0, 30.0)), frames[3::4]

    def _clip(self) -> Clip:
        rng = self.rng
        some = self.sentences
        if rng.random() < self.share or not some:
            some = self.digits[int(rng.integers(len(self.digits)))]
        return some[int(rng.integers(len(some)))]

    def batch(self, count: int, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = [self.draw(seconds) for _ in range(count)]
        return torch.from_numpy(np.stack([d[0] for d in drawn])), torch.from_numpy(np.stack([d[1] for d in drawn]))


def mark(frames: NDArray[np.int64], label: int, first: int, behind: int) -> None:
    """Write the word's label to its steps, and ``IGNORED`` before and after them."""
    frames[max(0, first + (behind - first) // 3) : behind + UNTIL + 8] = IGNORED
    frames[behind + FROM : behind + UNTIL] = label


def train(folder: Path, minutes: float | None = None, steps: int = 0) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``.
    Raises ``FileNotFoundError`` if the shared data is missing."""
    corpus = aligned_train(RATE)
    kitchen = data.kitchen(RATE).astype(np.float32) / 32768
    heard, unheard = np.split(kitchen, [int(HEARD * len(kitchen))])
    spelling = sorted({u.speaker for u in corpus if u.is_digits})
    rest, held = data.by_speaker(corpus, {*dev_speakers(corpus), *spelling[2::5]})
    takes = [isolated(u) for u in data.fsdd(RATE) if u.speaker != LEFT_OUT]
    made = [isolated(u) for u in digit_strings(4000, RATE) if u.text in DIGITS]
    parts = [[sentence(u) for u in group] for group in (rest, held)]
    cuts = [[sentence(u) for u in cut_words(group, DIGITS, RATE)] for group in (rest, held)]
    torch.manual_seed(1)
    streams = KeywordStreams(parts[0], [takes, takes, cuts[0], cuts[0], made], Noises(RATE, heard, 1), 1)
    others = KeywordStreams(parts[1], [cuts[1]], Noises(RATE, heard, 2), 2)
    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=6e-3, average=0.99)
    best = learn(streams, others, folder, budget)
    test, unseen = data.speechocean("test", RATE), [u for u in data.fsdd(RATE) if u.speaker == LEFT_OUT]
    leave(folder, score(checkpoint.load(best)[0], test, unseen, Noises(RATE, unheard, 99)))
    return best


def learn(streams: KeywordStreams, others: KeywordStreams, folder: Path, budget: Budget, epoch: int = EPOCH) -> Path:
    """Train on ``streams``; returns the checkpoint with the lowest loss on ``others``."""
    model = AudioClassifier(AudioClassifierConfig(len(LABELS), channels=48, hidden=64, size=160))
    model.normalise(streams.batch(BATCH, SECONDS)[0])
    batches = Batches(lambda: streams.batch(BATCH, SECONDS), min(epoch, budget.steps or epoch))
    return teach(model, batches, [others.batch(BATCH, SECONDS) for _ in range(3)], INFO, folder, budget)


# -- the score ---------------------------------------------------------------------------------------------------------


def score(
    model: AudioClassifier, sentences: Sequence[Utterance], digits: Sequence[Utterance], noises: Noises
) -> dict[str, float]:
    """Detection rates and false alarms, with the daemon's task. Running speech: the sentences of each held-out speaker,
    one after another. Isolated: a held-out adult's digits with short pauses. Thresholds are chosen for 10 and 60 false
    alarms an hour in running speech."""
    rng = np.random.default_rng(99)
    people: dict[str, list[Utterance]] = {}
    for utterance in sentences:
        people.setdefault(utterance.speaker, []).append(utterance)
    running = [_spoken(model, mine, noises, rng) for mine in people.values()]
    order = [digits[int(i)] for i in rng.permutation(len(digits))]
    apart = [_spoken(model, order[i : i + 50], noises, rng) for i in range(0, len(order), 50)]
    hours = sum(len(scores) for scores, _ in running) / 25 / 3600
    found = {}
    for wanted in (10, 60):
        rates = []
        for on in np.arange(0.98, 0.2, -0.02):
            hits, alarms, words = count(running, float(on))
            rates.append((hits / max(1, words), alarms / hours, float(on)))
        rate, alarms, on = max((r for r in rates if r[1] <= wanted), default=rates[0])
        single, _, words = count(apart, on)
        found |= {
            f"detected in running speech at {wanted} false alarms an hour": rate,
            f"detected, isolated, at {wanted} false alarms an hour": single / max(1, words),
            f"threshold at {wanted} false alarms an hour": on,
        }
    hits, alarms, words = count(running, OPTIONS["segments"]["on"])
    return found | {
        "detected in running speech as shipped": hits / max(1, words),
        "false alarms an hour": alarms / hours,
    }


Spoken = tuple[NDArray[np.float32], list[tuple[float, float, list[str]]]]


@torch.no_grad()
def _spoken(model: AudioClassifier, mine: Sequence[Utterance], noises: Noises, rng: np.random.Generator) -> Spoken:
    """Scores [T, L] of a speaker's recordings, one after another, and for each recording: start and end in seconds, and
    its digits."""
    parts, said, at = [], [], 0.5
    parts.append(np.zeros(RATE // 2, np.float32))
    for utterance in mine:
        wave: Wave = np.asarray(utterance.pcm, np.float32) / 32768
        pause = np.zeros(int(rng.uniform(0.3, 0.8) * RATE), np.float32)
        parts += [wave, pause]
        words = [word.lower() for word in utterance.text.split() if word in DIGITS]
        said.append((at, at + len(wave) / RATE, words))
        at += (len(wave) + len(pause)) / RATE
    whole = np.concatenate(parts)
    pcm = mixed(whole[: len(whole) // HOP * HOP], noises, rng, RATE, snr=(10.0, 30.0), narrow=0.0)
    output, _ = model(torch.from_numpy(pcm)[None], model.initial_state(1))
    return output["scores"][0].numpy(), said


def count(spoken: Sequence[Spoken], on: float) -> tuple[int, int, int]:
    """(detected digits, false alarms, spoken digits)."""
    task = Classify(_manifest())
    hits = alarms = total = 0
    for scores, said in spoken:
        memory = task.open({"segments": {"on": on, "off": 0.5 * on}, "partials": False})
        events = [*task.step([memory], {"scores": scores[None]}, [len(scores)])[0], *task.finish(memory)]
        named = [e for e in events if isinstance(e, Segment) and e.phase == "end" and e.end is not None]
        for begin, end, words in said:
            mine = Counter(e.label for e in named if begin <= (e.start + (e.end or 0)) / 2 < end + 0.3)
            good = sum((mine & Counter(words)).values())
            hits, alarms, total = hits + good, alarms + sum(mine.values()) - good, total + len(words)
    return hits, alarms, total


def _manifest() -> Manifest:
    """A manifest like the file's, with one step a chunk."""
    return Manifest(
        schema=1, name="keyword", version="1", task="classify", licence="", states=(), latency=0, flush=0, max_batch=1,
        input=Input(name="pcm", dtype="int16", chunk_shape=(HOP,), sample_rate=RATE),
        outputs=(Output(name="scores", dtype="float32", shape=(1, len(LABELS))),), options=OPTIONS,
        provenance=Provenance(data="", revision="", tolerance=0.0), golden=Golden(chunks=(), outputs={"scores": ()}),
    )  # fmt: skip
