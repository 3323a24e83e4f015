"""Measures the errors of an exported recogniser's confidences and word times, and fits the options that correct them.

    python -m models.speech.fitting FILE.onnx                      # report on development recordings
    python -m models.speech.fitting FILE.onnx -o NEW.onnx          # also write a file with the fitted options
    python -m models.speech.fitting FILE.onnx --report             # also report on the report sets

The options are fitted on held-out recordings: development speakers of speechocean762, spoken orders and actors.
Confidence: weights of :mod:`streamer.tasks.transcribe.confidence` by regularised logistic regression, with the same
weight for each set. Times: median errors of the words' starts and ends against a forced alignment (PocketSphinx,
:mod:`models.speech.align`).
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.speech.align import Aligner
from models.speech.corpus.packages import corpus_folder
from models.speech.corpus.spoken import speak
from models.speech.corpus.spoken import words as words_of
from models.speech.data import Utterance, data_folder, pronounce, read_audio, speechocean
from models.speech.posteriors import posteriors
from streamer.engine.model import Model
from streamer.tasks.base import Word
from streamer.tasks.transcribe.confidence import FEATURES, features
from streamer.tasks.transcribe.task import Transcribe

__all__ = ["Scored", "calibration_error", "development", "fit", "hear", "matches", "report_sets"]

Floats = NDArray[np.float64]
RATE = 16000
SAME = 0.25  # seconds between the starts of a word in two events, at most


# -- recordings --------------------------------------------------------------------------------------------------------


def development() -> dict[str, list[Utterance]]:
    """Held-out recordings by set; actors only if the corpus has them."""
    from models.shipped.english import unheard
    from models.training.recipe import dev_speakers

    read = speechocean("train", RATE)
    held = set(dev_speakers(read))
    dev = [u for u in read if u.speaker in held]
    sets: dict[str, list[Utterance]] = {
        "adults": [u for u in dev if u.age >= 16],
        "children": [u for u in dev if u.age < 16],
        "orders": _listed("orders", "base", {"part": "train", "agree": "1"})[::8],
        "actors": list(unheard(corpus_folder() / "english")),
    }
    return {name: utterances for name, utterances in sets.items() if utterances}


def report_sets() -> dict[str, list[Utterance]]:
    test = speechocean("test", RATE)
    return {
        "commonvoice": _listed("commonvoice"),
        "ljspeech": _listed("ljspeech"),
        "test adults": [u for u in test if u.age >= 16],
        "test children": [u for u in test if u.age < 16],
        "spoken orders": _listed("orders", "base", {"part": "report", "agree": "1"}),
    }


def some(sets: Mapping[str, list[Utterance]], most: int | None) -> dict[str, list[Utterance]]:
    """At most ``most`` recordings of each set, evenly spaced."""
    return {name: part[:: -(-len(part) // most) if most else 1] for name, part in sets.items()}


def _listed(folder: str, column: str = "text", only: Mapping[str, str] = {}) -> list[Utterance]:
    """The recordings that a table lists, with their spoken words. ``column``: of the text; ``only``: values of other
    columns that a row must have."""
    root, made = data_folder() / "speech" / folder, []
    with (root / "utterances.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            said = speak(row[column], random.Random(row["path"]))
            if said and all(row[key] == value for key, value in only.items()):
                text = " ".join(words_of(said))
                made.append(Utterance(row["path"], row["path"], text, [], 0, read_audio(root / row["path"], RATE)))
    return made


# -- recognition -------------------------------------------------------------------------------------------------------


@dataclass
class Scored:
    """One recording. ``said``: the reference words; ``utterance``: the words of each of its finals; ``match``: for each
    word the index of its reference word, or ``None``; ``reported``: for each word the time in the stream, in seconds,
    of the first event that has it at about its place."""

    said: list[str]
    utterance: list[list[Word]]
    match: list[int | None]
    reported: list[float] = field(default_factory=list)

    @property
    def words(self) -> list[Word]:
        return [word for words in self.utterance for word in words]


def hear(model: Model, task: Transcribe, utterances: Sequence[Utterance]) -> list[Scored]:
    """Recognise each recording as a separate stream, chunk by chunk, with partials."""
    manifest, found = model.manifest, []
    for utterance, logp in zip(utterances, posteriors(model, [np.asarray(u.pcm) for u in utterances]), strict=True):
        memory = task.open({})
        finals: list[list[Word]] = []
        reported: list[float] = []
        shown: list[tuple[float, Word]] = []  # of this utterance's events
        for at in range(0, len(logp) + manifest.steps, manifest.steps):
            steps = min(manifest.steps, len(logp) - at)
            now = (at + manifest.steps) * manifest.hop / RATE
            if steps > 0:
                events = task.step([memory], {task.output: logp[None, at : at + steps]}, [steps])[0]
            else:
                events = task.finish(memory)
            for event in events:
                shown += [(now, word) for word in event.words]
                if event.type == "final":
                    finals.append(list(event.words))
                    reported += [next(time for time, word in shown if _same(word, final)) for final in event.words]
                    shown.clear()
            if steps <= 0:
                break
        said = utterance.text.lower().split()
        found.append(Scored(said, finals, matches(said, [w.word for words in finals for w in words]), reported))
    return found


def _same(one: Word, other: Word) -> bool:
    return one.word == other.word and abs(one.start - other.start) <= SAME


def matches(said: Sequence[str], heard: Sequence[str]) -> list[int | None]:
    """For each word of ``heard`` the index of its word in ``said``, by an alignment of least edits; ``None`` for a
    wrong word."""
    cost = np.zeros((len(said) + 1, len(heard) + 1), np.int64)
    cost[:, 0], cost[0] = np.arange(len(said) + 1), np.arange(len(heard) + 1)
    for i, word in enumerate(said, 1):
        for j, other in enumerate(heard, 1):
            cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, cost[i - 1, j - 1] + (word != other))
    found: list[int | None] = [None] * len(heard)
    i, j = len(said), len(heard)
    while i and j:
        same = said[i - 1] == heard[j - 1]
        if cost[i, j] == cost[i - 1, j - 1] + (not same):
            i, j = i - 1, j - 1
            found[j] = i if same else None
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return found


# -- confidence --------------------------------------------------------------------------------------------------------


def table(heard: Sequence[Scored], task: Transcribe) -> tuple[Floats, Floats]:
    """Features [words, F], and 1 for each right word [words]. ``task`` must report uncorrected confidences."""
    rows = [
        features([w.word for w in words], [w.confidence for w in words], task.transcript.lm or task._lm)
        for one in heard
        for words in one.utterance
        if words
    ]
    right = [match is not None for one in heard for match in one.match]
    return np.concatenate(rows) if rows else np.zeros((0, len(FEATURES))), np.array(right, np.float64)


def fit(tables: Sequence[tuple[Floats, Floats]], ridge: float = 1e-3) -> dict[str, Any]:
    """The manifest's option ``confidence``: weights and bias by Newton's method. ``tables``: of each set; all have the
    same weight."""
    x = np.concatenate([rows for rows, _ in tables])
    y = np.concatenate([right for _, right in tables])
    share = np.concatenate([np.full(len(right), 1 / (len(right) * len(tables))) for _, right in tables if len(right)])
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.concatenate([np.ones((len(x), 1)), (x - mean) / spread], axis=1)
    w = np.zeros(z.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-z @ w))
        slope = z.T @ (share * (p - y)) + ridge * w
        bend = (z * (share * p * (1 - p))[:, None]).T @ z + ridge * np.eye(len(w))
        w -= np.linalg.solve(bend, slope)
    weights = w[1:] / spread
    return {"bias": float(w[0] - weights @ mean), "weights": weights.tolist()}


def calibration_error(sure: Floats, right: Floats, bins: int = 10) -> float:
    """Expected calibration error (Naeini et al. 2015): the mean over bins of equal width, weighted by their words, of
    the distance between confidence and share of right words."""
    place = np.minimum((sure * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins)
    apart = np.bincount(place, sure, bins) - np.bincount(place, right, bins)
    return float(np.abs(apart).sum() / max(1, count.sum()))


# -- times -------------------------------------------------------------------------------------------------------------


def spoken_at(utterances: Sequence[Utterance]) -> list[Floats | None]:
    """For each recording the seconds [words, 2] at which each word starts and ends, by forced alignment; ``None``
    without an alignment."""
    aligner, found = Aligner(), []
    for utterance in utterances:
        phones = utterance.phones or [(pronounce(word) or [[]])[0] for word in utterance.text.split()]
        if not all(phones):
            found.append(None)
            continue
        segments = aligner.segments(np.asarray(utterance.pcm), [p for word in phones for p in word])
        ends = np.cumsum([len(word) for word in phones])
        if not len(segments):
            found.append(None)
            continue
        found.append(np.stack([segments[ends - [len(w) for w in phones], 0], segments[ends - 1, 1]], axis=1) / 100)
    return found


def off(heard: Sequence[Scored], spoken: Sequence[Floats | None]) -> Floats:
    """For the right words, in seconds [words, 3]: lateness of start and of end, and time from its end to its report."""
    rows = [
        (word.start - times[match, 0], word.end - times[match, 1], reported - times[match, 1])
        for one, times in zip(heard, spoken, strict=True)
        if times is not None
        for word, match, reported in zip(one.words, one.match, one.reported, strict=True)
        if match is not None
    ]
    return np.array(rows, np.float64).reshape(-1, 3)


# -- the command -------------------------------------------------------------------------------------------------------


def report(name: str, one: Sequence[Scored], spoken: Sequence[Floats | None]) -> dict[str, float]:
    sure = np.array([word.confidence for h in one for word in h.words])
    right = np.array([match is not None for h in one for match in h.match], np.float64)
    late = off(one, spoken)
    found = {"words": len(sure), "right": right.mean(), "calibration error": calibration_error(sure, right)}
    if len(late):
        found |= {
            "aligned": len(late),
            "begin off, median": np.median(np.abs(late[:, 0])),
            "end off, median": np.median(np.abs(late[:, 1])),
            "to the partial, median": np.median(late[:, 2]),
            "to the partial, 90 %": np.quantile(late[:, 2], 0.9),
            "to the partial, 95 %": np.quantile(late[:, 2], 0.95),
        }
    print(f"{name:14}", "  ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)
    return {key: float(value) for key, value in found.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models.speech.fitting", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--out", type=Path, help="write the model with the fitted options")
    parser.add_argument("--options", type=Path, help="write the fitted options as JSON, for python -m export")
    parser.add_argument("--report", action="store_true", help="also measure the report sets")
    parser.add_argument("--most", type=int, help="recordings of each set, evenly spaced (default: all)")
    given = parser.parse_args(argv)
    model = Model.load(given.model)
    options = dict(model.manifest.options)
    plain = {key: value for key, value in options.items() if key not in ("confidence", "times")}

    def task(more: dict[str, Any]) -> Transcribe:
        return Transcribe(model.manifest.model_copy(update={"options": {**plain, **more}}))

    dev = some(development(), given.most)
    first = task({})
    heard = {name: hear(model, first, utterances) for name, utterances in dev.items()}
    spoken = {name: spoken_at(utterances) for name, utterances in dev.items()}
    for name, one in heard.items():
        report(name, one, spoken[name])
    late = np.concatenate([off(one, spoken[name]) for name, one in heard.items()])
    times = {"start": -round(float(np.median(late[:, 0])), 3), "end": -round(float(np.median(late[:, 1])), 3)}
    fitted = {"confidence": fit([table(one, first) for one in heard.values()]), "times": times}
    print(json.dumps(fitted))
    after = task(fitted)
    for name, utterances in dev.items():
        report(name, hear(model, after, utterances), spoken[name])
    if given.report:
        found = {
            name: (hear(model, after, utterances), spoken_at(utterances))
            for name, utterances in some(report_sets(), given.most).items()
        }
        for name, (one, times) in found.items():
            report(name, one, times)
        everything = [h for one, _ in found.values() for h in one]
        report("all of these", everything, [t for _, times in found.values() for t in times])
    if given.options:
        given.options.write_text(json.dumps(fitted, indent=1) + "\n")
    if given.out:
        from models.speech.pack import repack

        repack(given.model, given.out, fitted)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
