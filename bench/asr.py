"""Word error rate of shipped models on recorded speech, with the daemon's registry, engine and decoder.

Every recording is a separate stream; the words of its finals are scored. The intervals are 95 % bootstrap intervals
over speakers. Needs the shared data set (``$STREAMER_DATA``, default ``../shared/data``), whose test part is for
reporting only.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from bench.report import finish
from bench.words import plain
from models.speech import data
from models.speech.data import Utterance
from models.training.score import bootstrap, edits
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.registry import Registry

IN_FLIGHT = 64  # streams open at once
COUNTS = ("recordings", "speakers", "words")


@dataclass(frozen=True)
class Part:
    """A set of recordings whose error rate is reported separately."""

    name: str
    utterances: list[Utterance]


def joined(takes: Sequence[Utterance], strings: int, rate: int, seed: int = 0) -> list[Utterance]:
    """Isolated takes of one speaker, joined to ``strings`` strings of 3 to 7, with 0.1 to 0.4 s of quiet between."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(strings):
        chosen = [takes[int(k)] for k in rng.integers(len(takes), size=int(rng.integers(3, 8)))]
        pieces = [part for u in chosen for part in (quiet(rng, rate), u.pcm)] + [quiet(rng, rate)]
        text = " ".join(u.text for u in chosen)
        out.append(Utterance(f"joined-{i}", chosen[0].speaker, text, [], 30, np.concatenate(pieces)))
    return out


def quiet(rng: np.random.Generator, rate: int) -> data.Pcm:
    """Near-silence of random length: the noise floor of a recording, not digital zeros."""
    return rng.normal(0, 3, int(rng.uniform(0.1, 0.4) * rate)).astype(np.int16)


def digit_parts(rate: int) -> list[Part]:
    from models.shipped.speech import LEFT_OUT

    strings = [u for u in data.speechocean("test", rate) if u.is_digits]
    takes = [u for u in data.fsdd(rate) if u.speaker == LEFT_OUT]
    return [
        Part("test digit strings", strings),
        Part("of them adults", [u for u in strings if u.age >= 16]),
        Part("of them children", [u for u in strings if u.age < 16]),
        Part(f"left-out speaker {LEFT_OUT}", joined(takes, 150, rate)),
    ]


def english_parts(rate: int) -> list[Part]:
    test = data.speechocean("test", rate)
    trained = {u.text for u in data.speechocean("train", rate)}
    adults = [u for u in test if u.age >= 16]
    children = [u for u in test if u.age < 16]
    return [
        Part("test adults", adults),
        Part("test children", children),
        Part("adults, sentences not in train", [u for u in adults if u.text not in trained]),
        Part("children, sentences not in train", [u for u in children if u.text not in trained]),
        *(Part(name, utterances) for name, utterances in elsewhere().items()),
    ]


def elsewhere() -> dict[str, list[Utterance]]:
    """Report sets of other speakers: volunteers with their own microphones, a native reader, spoken orders."""
    from bench.recognisers import clips

    found: dict[str, list[Utterance]] = {}
    for clip in clips(whole=False):
        if not clip.part.startswith("learners"):
            found.setdefault(clip.part, []).append(Utterance(clip.key, clip.speaker, clip.text, [], 30, clip.pcm))
    return found


PARTS: dict[str, Callable[[int], list[Part]]] = {"digits": digit_parts, "english": english_parts}


def transcripts(
    model: str | Path, recordings: Sequence[data.Pcm], rate: int, options: dict[str, Any] | None = None
) -> list[str]:
    """The text of each recording, int16 [N] at ``rate``, each a separate stream, at most ``IN_FLIGHT`` at a time.
    Raises ``RuntimeError`` if a stream fails."""
    longest = max(len(pcm) for pcm in recordings) / rate + 1.0
    settings = Settings(
        models=(str(model),), capacity=4 * IN_FLIGHT, buffer_seconds=longest, max_load=0, overload_seconds=3600
    )
    registry = Registry(settings, Metrics(CollectorRegistry()))
    registry.load()
    texts: list[list[str]] = [[] for _ in recordings]
    failures: list[str] = []
    room = threading.Semaphore(IN_FLIGHT)

    def sink(i: int) -> Callable[[list[dict[str, Any]]], None]:
        def take(events: list[dict[str, Any]]) -> None:
            for event in events:
                if event["type"] == "final":
                    texts[i].append(event["text"])
                elif event["type"] == "error":
                    failures.append(f"recording {i}: {event['message']}")
                if event["type"] in ("end", "error"):
                    room.release()

        return take

    try:
        for i, pcm in enumerate(recordings):
            room.acquire()
            asked = {"partials": False, **(options or {})}
            session = registry.open(model=None, sample_rate=rate, sink=sink(i), options=asked)
            session.feed(np.ascontiguousarray(pcm).tobytes())
            session.end()
        for _ in range(IN_FLIGHT):
            room.acquire()
    finally:
        registry.close()
    if failures:
        raise RuntimeError("; ".join(failures[:3]))
    return [" ".join(parts) for parts in texts]


def score(part: Part, texts: Sequence[str]) -> dict[str, Any]:
    """Word error rate (0.1 is 10 %) with its interval and counts."""
    said = [plain(u.text) for u in part.utterances]
    wrong = [edits(words, plain(text)) for words, text in zip(said, texts, strict=True)]
    words = [len(words) for words in said]
    low, high = bootstrap(wrong, words, [u.speaker for u in part.utterances])
    return {
        "wer": sum(wrong) / sum(words),
        "low": low,
        "high": high,
        "words": sum(words),
        "recordings": len(words),
        "speakers": len({u.speaker for u in part.utterances}),
    }


def heard(model: str, parts: list[Part], rate: int, options: dict[str, Any] | None = None) -> dict[str, list[str]]:
    """The transcripts by the name of the part. A recording of several parts is decoded once."""
    unique = {id(u): u for part in parts for u in part.utterances}
    texts = dict(zip(unique, transcripts(model, [u.pcm for u in unique.values()], rate, options), strict=True))
    return {part.name: [texts[id(u)] for u in part.utterances] for part in parts if part.utterances}


def measure(model: str, parts: list[Part], rate: int, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The scores of all parts that are not empty, by name."""
    texts = heard(model, parts, rate, options)
    return {part.name: score(part, texts[part.name]) for part in parts if part.name in texts}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench asr", description=__doc__)
    parser.add_argument("--model", action="append", help="shipped name or path, may be repeated")
    parser.add_argument("--decoder", choices=("greedy", "beam"), help="instead of the model's own default")
    parser.add_argument("--peers", action="store_true", help="compare with Whisper, PocketSphinx and a second pass")
    parser.add_argument("--whisper", type=Path, help="folder of Whisper models; default $STREAMER_WHISPER")
    parser.add_argument("--second", default="base", help="Whisper model of the second pass")
    parser.add_argument("--only", action="append", default=[], help="peers: systems whose names start with this")
    parser.add_argument("--part", action="append", default=[], help="peers: a report set, such as 'LJ Speech'")
    parser.add_argument("--whole", action="store_true", help="peers: all learners, not one speaker in eight")
    parser.add_argument("--again", action="store_true", help="peers: transcribe all clips again")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    arguments = parser.parse_args(argv)
    if not (data.data_folder() / "speech").is_dir():
        parser.error(f"no recordings at {data.data_folder()}: set STREAMER_DATA to the shared data set")
    if arguments.peers:
        from bench.recognisers import default_folder, peers

        peers(
            arguments.model or ["english"],
            folder=arguments.whisper or default_folder(),
            second=arguments.second,
            only=arguments.only,
            sets=arguments.part,
            whole=arguments.whole,
            again=arguments.again,
            as_json=arguments.json,
        )
        return 0
    options = {"decoder": arguments.decoder} if arguments.decoder else None
    results: dict[str, Any] = {}
    for name in arguments.model or list(PARTS):
        path = resolve(name)
        manifest = Model.load(path).manifest
        kind = next((k for k in PARTS if manifest.name.startswith(k)), None)
        if kind is None or manifest.input.sample_rate is None:
            parser.error(f"{name}: there is a test for {', '.join(PARTS)} only")
        rate = manifest.input.sample_rate
        results[manifest.name] = measure(str(path), PARTS[kind](rate), rate, options)
    rows = [
        (model, part, *(s[key] for key in COUNTS), f"{s['wer']:.1%}", f"{s['low']:.1%} to {s['high']:.1%}")
        for model, parts in results.items()
        for part, s in parts.items()
    ]
    finish(
        "asr",
        results,
        columns=("model", "test", *COUNTS, "WER", "95 % interval"),
        rows=rows,
        plot=lambda axes: _bars(axes, results),
        as_json=arguments.json,
    )
    return 0


def _bars(axes: Any, results: dict[str, Any]) -> None:
    labels = [f"{model}\n{part}" for model, parts in results.items() for part in parts]
    scores = [s for parts in results.values() for s in parts.values()]
    wer = [100 * s["wer"] for s in scores]
    spread = [[100 * (s["wer"] - s["low"]) for s in scores], [100 * (s["high"] - s["wer"]) for s in scores]]
    axes.barh(labels, wer, xerr=spread, color="#4477aa", ecolor="#222222", capsize=3)
    axes.invert_yaxis()
    axes.set_xlabel("word error rate, % (95 % interval over speakers)")
