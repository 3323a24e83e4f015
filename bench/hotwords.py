"""Benefit and harm of hotwords: on recordings with the terms, and on recordings without them.

Terms are the rare words of a set of recordings. Each set is decoded four times: without hotwords and with all its terms
as hotwords, with the model's lexicon and with one that lacks the terms, as lexicons lack names. Recordings without any
term are decoded with the terms of the others: terms that are inserted there are harm. Needs the shared recordings;
without ``--report``, only those for development.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import finish
from models.speech.data import Utterance
from models.speech.fitting import development, matches, report_sets, some
from models.speech.posteriors import posteriors
from models.training.score import edits
from streamer.contract.manifest import Packed
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.tasks.transcribe.task import Transcribe, decode_all

__all__ = ["main"]

SHORTEST, FREQUENT = 5, 3000  # fewest letters of a term; number of the most frequent words, which are not terms


def terms(task: Transcribe, utterances: Sequence[Utterance], most: int) -> list[str]:
    """At most ``most`` long words that are not among the most frequent, those said most often first."""
    lm = task._lm
    assert lm is not None
    order = np.argsort(-lm.unigram(np.arange(len(lm.words))), kind="stable")[:FREQUENT]
    common = {lm.words[i] for i in order.tolist()}
    said = Counter(word for u in utterances for word in u.text.lower().split())
    found = [word for word, _ in said.most_common() if len(word) >= SHORTEST and word not in common and "'" not in word]
    return found[:most]


def without(model: Model, words: Sequence[str]) -> Transcribe:
    """The model's task with a lexicon that lacks these words."""
    options = dict(model.manifest.options)
    lines = Packed.model_validate(options["lexicon"]).unpack().decode().splitlines(keepends=True)
    gone = set(words)
    kept = "".join(line for line in lines if line.split("\t")[0] not in gone)
    return Transcribe(
        model.manifest.model_copy(update={"options": options | {"lexicon": Packed.pack(kept.encode()).model_dump()}})
    )


def recall(utterances: Sequence[Utterance], texts: Sequence[str], wanted: set[str]) -> tuple[int, int, int]:
    """(spoken terms, recognised ones, inserted ones)."""
    said = found = invented = 0
    for utterance, text in zip(utterances, texts, strict=True):
        truth, heard = utterance.text.lower().split(), text.split()
        said += sum(word in wanted for word in truth)
        for word, match in zip(heard, matches(truth, heard), strict=True):
            if word in wanted:
                found, invented = found + (match is not None), invented + (match is None)
    return said, found, invented


def error(utterances: Sequence[Utterance], texts: Sequence[str]) -> float:
    wrong = sum(edits(u.text.lower().split(), text.split()) for u, text in zip(utterances, texts, strict=True))
    return wrong / max(1, sum(len(u.text.split()) for u in utterances))


def measure(
    model: Model, task: Transcribe, utterances: Sequence[Utterance], most: int, bonuses: Sequence[float | None]
) -> list[dict[str, Any]]:
    """The comparison for each of ``bonuses``."""
    rows = posteriors(model, [np.asarray(u.pcm) for u in utterances])
    words = terms(task, utterances, most)
    tasks = {"known": task, "lacking": without(model, words)}
    plain = {name: decode_all(one, rows) for name, one in tasks.items()}
    found = []
    for bonus in bonuses:
        options = {"hotwords": words} | ({} if bonus is None else {"hotword_bonus": bonus})
        hot = {name: decode_all(one, rows, options) for name, one in tasks.items()}
        found.append(compare(utterances, words, {"plain": plain, "hotwords": hot}))
    return found


def compare(
    utterances: Sequence[Utterance], words: Sequence[str], heard: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, Any]:
    """``heard``: texts by kind (plain, hotwords) and lexicon (known, lacking)."""
    wanted = set(words)
    with_term = [bool(wanted & set(u.text.lower().split())) for u in utterances]
    found: dict[str, Any] = {"terms": len(words)}
    for kind, by_lexicon in heard.items():
        for name, texts in by_lexicon.items():
            said, right, invented = recall(utterances, texts, wanted)
            found["said"] = said
            found[f"{name}, {kind}"] = {"recall": right / max(1, said), "invented": invented}
            if name == "known":
                others = [i for i, has in enumerate(with_term) if not has]
                apart = [utterances[i] for i in others]
                found[f"error elsewhere, {kind}"] = error(apart, [texts[i] for i in others])
                found[f"error, {kind}"] = error(utterances, texts)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench hotwords", description=__doc__)
    parser.add_argument("--model", default="english", help="shipped name or path")
    parser.add_argument("--most", type=int, default=100, help="terms of a set (default: %(default)s)")
    parser.add_argument("--bonus", type=float, nargs="*", help="instead of the model's bonus; several are compared")
    parser.add_argument("--report", action="store_true", help="also measure the report sets")
    parser.add_argument("--recordings", type=int, help="of each set, evenly spaced (default: all)")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    path = Path(resolve(given.model))
    model = Model.load(path)
    sets = development() | (report_sets() if given.report else {})
    sets = some(sets, given.recordings)
    results: dict[str, Any] = {}
    task, bonuses = Transcribe(model.manifest), given.bonus or [None]
    for name, utterances in sets.items():
        for bonus, found in zip(bonuses, measure(model, task, utterances, given.most, bonuses), strict=True):
            results[name if bonus is None else f"{name}, bonus {bonus:g}"] = found
            print(name, bonus, found, flush=True)
    rows = [
        (
            name, r["terms"], r["said"],
            *(f"{r[f'{lexicon}, {kind}']['recall']:.0%} ({r[f'{lexicon}, {kind}']['invented']})"
              for lexicon in ("known", "lacking") for kind in ("plain", "hotwords")),
            *(f"{r[f'{what}, {kind}']:.1%}" for what in ("error", "error elsewhere") for kind in ("plain", "hotwords")),
        )
        for name, r in results.items()
    ]  # fmt: skip
    columns = ("set", "terms", "said", "recall (invented)", "with hotwords", "terms taken out", "with hotwords",
               "word error", "with hotwords", "where none is said", "with hotwords")  # fmt: skip
    finish("hotwords", results, columns=columns, rows=rows, as_json=given.json)
    return 0
