"""The recipe ``english``: hours of synthetic speakers (``python -m models corpus english``), and real ones.

Training may start while the corpus is still being made; ``--resume`` continues from the last checkpoint.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from models.speech import align, data
from models.speech.acoustic import AcousticConfig
from models.speech.augment import Augmentation
from models.speech.corpus import shards
from models.speech.corpus.english import GAME
from models.speech.corpus.packages import Packages, corpus_folder
from models.speech.ctc import CtcOptions
from models.speech.data import TOKENS, Utterance
from models.speech.mixture import UtteranceSource
from models.speech.scenes import SpeechScenes
from models.training.recipe import Recipe, dev_speakers

RATE = 16000
#: Shares of the examples at the beginning and at the end of the training; real speakers have more weight at its end.
#: ``nothing``: scenes without speech.
SHARES = {
    "speechocean": (0.22, 0.24), "orders": (0.03, 0.04), "queen": (0.35, 0.33), "sky": (0.20, 0.19),
    "kokoro": (0.07, 0.06), "hibari": (0.01, 0.01), "debian": (0.01, 0.01), "asterisk": (0.03, 0.03),
    "nothing": (0.08, 0.09),
}  # fmt: skip
MADE = ("queen", "sky", "kokoro", "hibari", "debian", "asterisk")
#: Characters of the game that are held out for development. Scenes with several people stay in training, and the actors
#: of these characters may have spoken others, too.
UNHEARD = ("queen HENRY", "queen LOU", "queen BUD")
#: The corpus's first shard is for development. No other shard has its speakers, since every shard draws new voice
#: blends.
HELD_OUT = "english-00000"

LICENCE = (
    "speechocean762: free for commercial and non-commercial purposes; Flight of the Amazon Queen, (C) John Passfield "
    "and Steven Stamatiadis: free to modify and to distribute with attribution, not to be sold by itself; Beneath a "
    "Steel Sky, all game content (C) Revolution Software Ltd: free to distribute and, marked as such, to modify, not "
    "to be sold by itself; spoken orders: Apache-2.0, their texts: Whisper, MIT; voices: Kokoro-82M, hibari-tts "
    "(Apache-2.0), flite and espeak-ng (synthetic), Asterisk core sounds (CC BY-SA 3.0); texts read by them: "
    "Schema-Guided Dialogue and Rev earnings21/22 (CC BY-SA 4.0), VCTK prompts, Taskmaster and LibriSpeech (CC BY "
    "4.0), LJ Speech (public domain); kitchen noise: Apache-2.0; word frequencies: wordfreq (CC BY-SA 4.0)"
)

#: Licences of the texts that only the language model is trained on.
TEXTS = (
    "; language model: also addresses on the state of the union (CC0), Moby Dick and Jane Austen's novels (public "
    "domain), WordNet 3.0, copyright 2006 by Princeton University (WordNet licence)"
)


#: Configurations by family.
FAMILIES = {
    "lstm": AcousticConfig(
        "lstm", RATE, len(TOKENS), strides=(2, 2), channels=224, kernel=3, dilations=(1, 2, 4, 1, 2, 4, 1, 2),
        hidden=384, layers=3, dropout=0.1, gated=True,
    ),
    "wavenet": AcousticConfig(
        "wavenet", RATE, len(TOKENS), strides=(2, 2), channels=256, skip=256, kernel=3, dilations=(1, 2, 4, 8) * 3,
        dropout=0.1, gated=True,
    ),
    # whisper-base's encoder with attention in blocks of 320 ms; start from its weights: python -m models.speech.whisper
    "attention": AcousticConfig(
        "attention", RATE, len(TOKENS), bands=80, channels=512, layers=6, heads=8, merged=2, block=8, past=64,
        half=True, dropout=0.1, gated=True, centred=True,
    ),
}  # fmt: skip


def english(family: str = "attention", everybody: bool = False) -> Recipe:
    """The recipe for a ``family`` of :data:`FAMILIES`. ``everybody``: train on the development speakers, too. Raises
    ``FileNotFoundError`` if there is no corpus yet."""
    folder = made_corpus().parent
    actors = unheard(folder / "english")
    read = speechocean()
    train, dev = data.by_speaker(read, dev_speakers(read))
    spoken = orders(folder)
    heard, held = [u for i, u in enumerate(spoken) if i % 8], spoken[::8]
    utterances = {"speechocean": read if everybody else train, "orders": spoken if everybody else heard, "nothing": []}
    options = CtcOptions(
        minutes=24 * 60, rate=2e-3, warm=0.02, weight_decay=0.02, consistency=0.0, average=0.9995, primed=0.3,
        rested=0.25,
    )  # fmt: skip
    augmentation = Augmentation(
        speeds=(0.86, 1.17), speed=0.6, noise=0.45, snr=(3.0, 35.0), reverb=0.35, gain=(-30.0, 6.0), before=(0.0, 0.8),
        after=(0.1, 0.8), frequency_width=8, time_masks=3, time_width=20, warp=0.15, tilt=0.35, crosstalk=0.06,
        microphone=0.4, codec=0.15, clip=0.06, step=0.08,
    )  # fmt: skip
    if family == "attention":
        options = replace(options, rate=3e-4, warm=0.05, phones=0.0, average=0.999, rested=0.1)
        augmentation = replace(augmentation, frequency_width=16)
    return Recipe(
        name="english" if family == "attention" else f"english-{family}",
        config=FAMILIES[family],
        options=options,
        augmentation=augmentation,
        sources=[
            UtteranceSource(
                name, utterances.get(name, []), _moving(*share), joined=(2, 2) if name == "speechocean" else (1, 1),
                together=0.15, more=corpus_reader(folder / "english", name) if name in MADE else None,
            )
            for name, share in SHARES.items()
        ],
        noise=data.kitchen(RATE),
        dev={
            "adults": [u for u in dev if u.age >= 16][::2],
            "children": [u for u in dev if u.age < 16][::2],
            "orders": held,
            **({"actors": actors} if actors else {}),
            "synthetic": shards.read(folder / "english", HELD_OUT)[:40],
        },
        chosen_by=("adults", "children", "orders", *(("actors",) if actors else ()), "synthetic"),
        seconds=60.0,
        batches=90,
        limit=lambda progress: min(16.0, 5.0 + 100.0 * progress),
        hearing=SpeechScenes,
        info={
            "data": ("initialised with the encoder of Whisper base; " if family == "attention" else "")
            + "4.0 h of actors (the game Flight of the Amazon Queen) and 1.9 h (Beneath a Steel Sky); speechocean762 "
            "train without ten of its speakers (2.6 h); the spoken orders on which two teachers agree (0.8 h); "
            "synthetic speakers, Asterisk's prompts (python -m models corpus english)",
            "licence": ("Whisper base: MIT; " if family == "attention" else "") + LICENCE + TEXTS,
            "cell_limit": 10.0,  # of an int8 LSTM: an hour of silence does not change the words after it
        },
    )  # fmt: skip


def made_corpus() -> Path:
    """The folder of shards. Raises ``FileNotFoundError`` if there is none yet."""
    folder = corpus_folder() / "english"
    if HELD_OUT not in shards.names(folder):
        raise FileNotFoundError(f"{folder}: no corpus there yet, make one: python -m models corpus english")
    return folder


def speechocean() -> list[Utterance]:
    """speechocean762's training part with the times of its phones."""
    corpus = data.speechocean("train", RATE)
    times = align.aligned("speechocean-train", corpus)
    for utterance in corpus:
        utterance.segments = times[utterance.key].tolist()
    return corpus


def orders(folder: Path) -> list[Utterance]:
    """The spoken orders of the training part on which both teachers agree, with the times of their phones."""
    root = data.data_folder() / "speech" / "orders"

    def make() -> list[Utterance]:
        from models.speech.corpus.g2p import Pronounce, label
        from models.speech.corpus.spoken import speak

        packages = Packages(folder)
        packages.importable()
        american, made = Pronounce(), []
        with (root / "utterances.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                spoken = speak(row["base"], random.Random(row["path"]))
                if row["part"] != "train" or row["agree"] != "1" or not spoken:
                    continue
                words, phones = label(spoken, american)
                pcm = data.read_audio(root / row["path"], RATE)
                made.append(Utterance(row["path"], f"order {row['path']}", " ".join(words), phones, 0, pcm))
        return made

    heard = data.cached(f"orders-agreed-{RATE}", make)
    times = align.aligned("orders-agreed", heard)
    for utterance in heard:
        utterance.segments = times[utterance.key].tolist()
    return heard


def corpus_reader(folder: Path, source: str) -> Callable[[], list[shards.Recording]]:
    """A function that returns the recordings of a source so far, without the held-out shard and actors. It reads each
    shard's table once."""

    @lru_cache(None)
    def of(name: str) -> list[shards.Recording]:
        found = [recording for recording in shards.read(folder, name) if recording.row.source == source]
        return [recording for recording in found if recording.speaker not in UNHEARD]

    def read() -> list[shards.Recording]:
        return [recording for name in shards.names(folder) if name != HELD_OUT for recording in of(name)]

    return read


def unheard(folder: Path, seconds: float = 2.0) -> list[shards.Recording]:
    """Every third recording of the held-out actors that has at least ``seconds``; none in a corpus without the game."""
    if GAME not in shards.names(folder):
        return []
    spoken = [recording for recording in shards.read(folder, GAME) if recording.speaker in UNHEARD]
    return [recording for recording in spoken if recording.samples >= seconds * RATE][::3]


def _moving(early: float, late: float) -> Callable[[float], float]:
    """A weight by progress: ``early``, then linear from .4 to .9 of the training, then ``late``."""
    return lambda progress: early + (late - early) * min(1.0, max(0.0, (progress - 0.4) / 0.5))
