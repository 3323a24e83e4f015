"""The language of the recipe ``english``: 62,000 words and their pronunciations, and an n-gram model of all the texts.

    python -m models.speech.language -o DIRECTORY     # lexicon.txt, lm.bin, letters.bin and a report

Texts are converted to spoken form (numbers in words); those of the report sets are left out. Prose in the public domain
is fetched from packages. Transcripts of training recordings have a higher weight. The words are all of the transcripts,
those that occur more than once in the texts, and then the most frequent of English (package ``wordfreq``, whose
frequencies are also what unigrams back off to). Pronunciations are CMUdict's; those of other words come from the
letter-to-sound model (:mod:`models.speech.letters`).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from models.speech import letters as sounds
from models.speech.corpus import prose
from models.speech.corpus.packages import Packages, corpus_folder
from models.speech.corpus.spoken import LONGEST, speak
from models.speech.corpus.spoken import words as words_of
from models.speech.data import cache_folder, data_folder
from models.speech.lm import Language, SentenceSource, estimate, lexicon, perplexity, pronunciations, to_bytes
from streamer.tasks.transcribe.letters import Letters
from streamer.tasks.transcribe.ngram import NGram

__all__ = ["TEXTS", "english", "report_sets", "texts", "vocabulary"]

#: Files, and the weight of a sentence of each: all sources, transcripts too, have about the same total weight, so that
#: none dominates.
TEXTS = {
    "dialogue.txt.gz": 0.25,
    "earnings_calls.txt.gz": 0.6,
    "prompts.txt.gz": 8.0,
    "orders.txt.gz": 2.0,
    "sentences.txt": 3.0,
}
#: Weight of a sentence of each of :data:`models.speech.corpus.prose.SOURCES`.
PROSE = {"addresses": 0.35, "moby-dick": 2.0, "austen": 0.5, "glosses": 0.4}
#: Words of one letter; other single characters are fragments.
SINGLE = frozenset("abcdefghijklmnopqrstuvwxyz")


def spoken(line: str, seed: str) -> list[str]:
    """The sentences of a line as lower-case spoken words; unspeakable parts are left out. Spelled letters are words."""
    said = []
    for sentence in re.split(r"(?<=[.?!]) +(?=[A-Z])", line):
        text = speak(sentence.lower() if sentence.isupper() else sentence, random.Random(seed))
        if text:
            said.append(" ".join(word.lower() for word in words_of(text)))
    return said


def texts(root: Path | None = None) -> dict[str, list[str]]:
    """Spoken sentences by source of :data:`TEXTS` and :data:`PROSE`, cached in the cache folder. Raises
    ``RuntimeError`` if a package can't be fetched."""
    root = root or data_folder()
    made: dict[str, list[str]] = {}
    for name in (*TEXTS, *PROSE):
        kept = cache_folder() / f"spoken-1-{name.split('.')[0]}.txt"
        if not kept.exists():
            if name in PROSE:
                lines = prose.paragraphs(Packages(corpus_folder()), name)
            else:
                raw = (root / "text" / name).read_bytes()
                lines = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode().splitlines()
            sentences = [text for i, line in enumerate(lines) for text in spoken(line, f"{name} {i}")]
            partial = kept.with_suffix(".tmp")
            partial.write_text("\n".join(sentences) + "\n")
            partial.replace(kept)
        made[name] = kept.read_text().splitlines()
    return made


def transcripts(root: Path, held_out: Iterable[str] = ()) -> tuple[list[str], list[str], list[str]]:
    """Transcripts of speechocean762's training part without the speakers ``held_out``, of these speakers, and of the
    spoken orders on which the teachers agree."""
    apart = set(held_out)
    with (root / "speech/speechocean762/train/utterances.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row["text"].lower() for row in rows if row["speaker"] not in apart]
    dev = [row["text"].lower() for row in rows if row["speaker"] in apart]
    orders = []
    with (root / "speech/orders/utterances.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["part"] == "train" and row["agree"] == "1":
                orders += spoken(row["base"], row["path"])
    return train, dev, orders


def report_sets(root: Path | None = None) -> dict[str, list[str]]:
    """The texts of the report sets, for the report only."""
    root = root or data_folder()
    found: dict[str, list[str]] = {}
    for name, folder in (("commonvoice",) * 2, ("ljspeech",) * 2, ("speechocean762", "speechocean762/test")):
        with (root / "speech" / folder / "utterances.csv").open(encoding="utf-8", newline="") as file:
            found[name] = [
                " ".join(word.lower() for word in words_of(speak(row["text"], random.Random(0)) or row["text"]))
                for row in csv.DictReader(file)
            ]
    return found


def vocabulary(
    sure: Iterable[str], more: Iterable[str], frequent: Sequence[str], size: int, known: Mapping[str, object]
) -> list[str]:
    """``size`` words: all of the sentences ``sure``; those of ``more`` that are ``known`` and occur twice, or that
    occur five times; then the first of ``frequent`` that are known or look like words."""
    words = dict.fromkeys(word for sentence in sure for word in sentence.split())
    counts = Counter(word for sentence in more for word in sentence.split())
    for word, count in counts.most_common():
        if count >= (2 if word in known else 5) and _is_word(word):
            words[word] = None
    for word in frequent:
        if len(words) >= size:
            break
        if _is_word(word) and (word in known or re.fullmatch(r"(?=.*[aeiouy])[a-z]{4,}", word)):
            words[word] = None
    return sorted(words)


def _is_word(word: str) -> bool:
    return (
        re.fullmatch(r"[a-z]+(?:'[a-z]+)?'?", word) is not None
        and len(word) <= LONGEST
        and (len(word) > 1 or word in SINGLE)
    )


def english(
    root: Path | None = None,
    size: int = 62_000,
    prune: float = 2.0,
    weight: float = 32.0,
    order: int = 3,
    held_out: Iterable[str] = (),
) -> tuple[Language, bytes]:
    """The language, and the packed letter-to-sound model.

    ``size``: number of words. ``prune``: as in :func:`models.speech.lm.estimate`. ``weight``: of a transcript relative
    to a sentence of text. ``held_out``: training speakers that are left out of words and counts; perplexity is measured
    on them. Test transcripts are read only for the report.
    """
    from wordfreq import get_frequency_dict

    root = root or data_folder()
    train, dev, orders = transcripts(root, held_out)
    sources = texts(root)
    known = pronunciations(root)
    frequencies = get_frequency_dict("en", wordlist="large")
    frequent = sorted(frequencies, key=lambda word: (-frequencies[word], word))
    more = [sentence for part in sources.values() for sentence in part]
    words = vocabulary([*train, *orders], more, frequent, size, known)
    letters = letter_model()
    guess = Letters(letters)
    said = {word: known.get(word) or [" ".join(phones) for phones in guess.pronounce(word, 2, 1.0)] for word in words}
    estimated = estimate(
        [
            SentenceSource(train, weight),
            SentenceSource(orders, weight),
            *(SentenceSource(part, (TEXTS | PROSE)[name]) for name, part in sources.items()),
        ],
        words,
        order,
        prune,
        frequencies,
    )
    packed, lines = to_bytes(*estimated), lexicon(words, said)
    lm = NGram(packed)
    report: dict[str, float] = {
        "words": len(words),
        "by_rule": sum(word not in known for word in words),
        "ngrams": lm.contexts - 1,
        **{f"ngrams_{n}": len(gram) for n, gram in enumerate(estimated[1], 1)},
        **{f"{name}_packed": len(lzma.compress(part, preset=9)) * 4 // 3
           for name, part in (("lexicon", lines), ("lm", packed), ("letters", letters))},
    }  # fmt: skip
    for name, sentences in (({"dev": dev} if dev else {}) | report_sets(root)).items():
        report[f"{name}_perplexity"], report[f"{name}_unknown"] = perplexity(lm, sentences)
    return Language(lines, packed, report), letters


def letter_model() -> bytes:
    """The packed letter-to-sound model of CMUdict, cached in the cache folder."""
    kept = cache_folder() / "letters-1.bin"
    if not kept.exists():
        partial = kept.with_suffix(".tmp")
        partial.write_bytes(sounds.train(sounds.dictionary()))
        partial.replace(kept)
    return kept.read_bytes()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m models.speech.language", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=62_000, help="words")
    parser.add_argument("--prune", type=float, default=2.0, help="a higher one makes a smaller model")
    parser.add_argument("--order", type=int, default=3)
    parser.add_argument("--weight", type=float, default=32.0, help="of a training transcript")
    parser.add_argument("--held-out", nargs="*", default=[], help="speakers to leave out and to measure on")
    given = parser.parse_args(argv)
    made, letters = english(None, given.size, given.prune, given.weight, given.order, given.held_out)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, data in (("lexicon.txt", made.lexicon), ("lm.bin", made.lm), ("letters.bin", letters)):
        (given.out / name).write_bytes(data)
    print(json.dumps({key: round(value, 4) for key, value in made.report.items()}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
