"""What the second pass gains from hearing a final with the sound before it.

Sentences of development speakers get a pause in their middle, so that each becomes two finals, and are decoded with
several seconds of context. Needs the shared recordings and, for actors, the corpus.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.recognisers import streaming
from bench.report import finish
from bench.words import plain
from models.shipped.english import RATE, speechocean, unheard
from models.speech.corpus.packages import corpus_folder
from models.speech.data import Pcm, Utterance, by_speaker
from models.training.recipe import dev_speakers
from models.training.score import edits
from streamer.streams import hearing

__all__ = ["main", "parted"]

#: Words of a sentence, at least; sentences of a set, at most; seconds of the pause.
WORDS, MOST, PAUSE = 6, 30, (1.1, 1.8)


def development() -> dict[str, list[Utterance]]:
    """Sentences of development speakers with the times of their phones."""
    read = speechocean()
    _, dev = by_speaker(read, dev_speakers(read))
    return {
        "adults": [u for u in dev if u.age >= 16],
        "children": [u for u in dev if u.age < 16],
        "actors": list(unheard(corpus_folder() / "english")),
    }


def parted(utterance: Utterance, rng: random.Random) -> Pcm:
    """The recording with a pause at a random border of its words, at least two from its ends. The pause has noise as
    loud as the recording's quietest tenth."""
    pcm = np.asarray(utterance.pcm)
    word = rng.randint(2, len(utterance.phones) - 2)
    phone = sum(map(len, utterance.phones[:word]))
    at = (utterance.segments[phone - 1][1] + utterance.segments[phone][0]) * RATE // 200
    level = max(2.0, float(np.percentile(np.abs(pcm.astype(np.int32)), 10)))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0.0, level, round(rng.uniform(*PAUSE) * RATE))
    return np.concatenate([pcm[:at], np.rint(noise).astype(np.int16), pcm[at:]])


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m bench context", description=__doc__)
    parser.add_argument("--model", default="english", help="the first recogniser")
    parser.add_argument("--whisper", type=Path, default=os.environ.get("STREAMER_WHISPER"),
                        help="folder of Whisper models; default $STREAMER_WHISPER")  # fmt: skip
    parser.add_argument("--second", default="base", help="Whisper model of the second pass")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0.3, hearing.CONTEXT], help="of context")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.whisper is None:
        parser.error("--whisper is needed: a folder with Whisper models in CTranslate2's format")
    rng = random.Random(1)
    sets: dict[str, list[tuple[list[str], Pcm]]] = {}
    for name, utterances in development().items():
        long = [u for u in utterances if len(u.phones) >= WORDS and u.segments]
        chosen = rng.sample(long, min(MOST, len(long)))
        if chosen:
            sets[name] = [(plain(u.text), parted(u, rng)) for u in chosen]
    results: dict[str, Any] = {}
    for seconds in given.seconds:
        hearing.CONTEXT = seconds  # the daemon has one value for all streams
        hear = streaming(given.model, str(Path(given.whisper) / given.second))
        found: dict[str, float] = {}
        wrong = words = 0
        cpu = 0.0
        for name, clips in sets.items():
            heard = [hear(pcm) for _, pcm in clips]
            errors = sum(edits(said, plain(result.text)) for (said, _), result in zip(clips, heard, strict=True))
            count = sum(len(said) for said, _ in clips)
            found[name], wrong, words = errors / count, wrong + errors, words + count
            cpu += sum(result.cpu for result in heard)
        results[f"{seconds:g}"] = {**found, "all": wrong / words, "cpu": cpu}
    names = [*sets, "all"]
    finish(
        "context",
        results,
        columns=["seconds of context", *names, "CPU s"],
        rows=[
            [seconds, *(f"{100 * row[name]:.1f}%" for name in names), f"{row['cpu']:.0f}"]
            for seconds, row in results.items()
        ],
        as_json=given.json,
    )
