"""Hotwords: what phrases earn, words that the lexicon lacks, and that nobody else hears of them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.speech.letters import train
from models.speech.lm import SentenceSource, estimate, to_bytes
from streamer.contract.manifest import Packed
from streamer.tasks.transcribe.hotwords import Biased, phrase
from streamer.tasks.transcribe.letters import Letters
from streamer.tasks.transcribe.lexicon import Lexicon, parse, pronounced
from streamer.tasks.transcribe.ngram import NGram
from tests.tasks.world import peaky, play, rows, spoken, task, texts

TOKENS = ["<blank>", "A", "B", "C", "D"]
WORDS = "a\tA\nab\tA B\nba\tB A\nc\tC\nad\tA D\nda\tD A\nb\tB\n"
TEXT = ["a ab c", "ba c a", "ab ab c", "c ba", "a a c ab"]
#: A word is said as it is spelt.
SPELLING = [
    ("".join(word), tuple(c.upper() for c in word)) for n in (2, 3, 4) for word in itertools.product("abcd", repeat=n)
]


def language_model() -> bytes:
    return to_bytes(*estimate([SentenceSource(TEXT)], ["a", "ab", "ba", "c", "ad", "da", "b"]))


def options(letters: bool = True, lm: bool = True, **decoder: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tokens": TOKENS,
        "units": "phones",
        "lexicon": Packed.pack(WORDS.encode()).model_dump(),
        "decoder": {"kind": "beam", **decoder},
        "endpoint": {"silence": 0.9, "trailing": 0.24, "length": 2.1},
    }
    made |= {"lm": Packed.pack(language_model()).model_dump()} if lm else {}
    return made | ({"letters": Packed.pack(train(SPELLING, 3, 0.0, 1)).model_dump()} if letters else {})


WITH = task(options())


def said(word: str, peak: float = 0.9) -> Any:
    path = [t for c in word for t in ("abcd".index(c) + 1, 0)]
    return rows([0, 0, *path, 0, 0], len(TOKENS), peak)


def test_a_word_that_the_lexicon_lacks_is_heard_once_it_is_expected() -> None:
    assert texts(play(WITH, said("dbca"))) != ["dbca"]
    assert texts(play(WITH, said("dbca"), {"hotwords": ["Dbca"]})) == ["dbca"]
    assert texts(play(task(options(lm=False)), said("dbca"), {"hotwords": ["dbca"]})) == ["dbca"]


def test_a_seldom_word_wins_over_a_frequent_one_by_its_bonus() -> None:
    unclear = rows([0, 1, 2, 0, 0], len(TOKENS), 0.9)
    unclear[2, [2, 4]] = np.log([0.48, 0.42])  # "ab", or perhaps "ad"
    assert texts(play(WITH, unclear)) == ["ab"]
    assert texts(play(WITH, unclear, {"hotwords": ["ad"]})) == ["ad"]
    assert texts(play(WITH, unclear, {"hotwords": ["ad"], "hotword_bonus": 0.0})) == ["ab"]


def test_a_hotword_that_is_not_said_is_not_heard() -> None:
    for word in ("ab", "c", "ba"):
        assert texts(play(WITH, said(word), {"hotwords": ["dbca", "ddd ccc", "da"]})) == [word]


def test_phrases_earn_word_by_word_and_give_back_what_breaks_off() -> None:
    lm = NGram(language_model())
    biased = Biased(lm, [("a", "ab", "c"), ("ab", "ba"), ("new",), ("a",)], 4.0)

    def earned(text: str) -> list[float]:
        state, plain, found = np.array([biased.begin]), np.array([lm.begin]), []
        for word in [*text.split(), "</s>"]:
            number = biased.numbers.get(word, lm.index.get(word, -1))
            logp, state = biased.score(state, np.array([number]))
            alone, plain = lm.score(plain, np.array([min(number, lm.index["<unk>"]) if word == "new" else number]))
            found.append(round(float(logp[0] - alone[0]), 3))
        return found

    assert earned("a ab c") == [4, 4, 4, 0]
    assert earned("c a c") == [0, 4, 0, 0]  # "a" is a phrase of its own and keeps what it earned
    assert earned("ab c") == [4, -4, 0]
    assert earned("ab") == [4, -4]
    assert earned("a ab ba") == [4, 4, 4, 0]  # "ab" goes on as the other phrase
    assert earned("new") == [4.0, 0.0]
    assert earned("c c") == [0, 0, 0]


def test_a_word_outside_of_the_model_is_as_seldom_as_its_rarest() -> None:
    strange = ["x y a", "z ab", "x a", "y y"]  # words that the model does not know are frequent, each of them is not
    lm = NGram(to_bytes(*estimate([SentenceSource([*TEXT, *strange])], ["a", "ab", "ba", "c", "da"])))
    biased = Biased(lm, [("new",)], 4.0)
    alone = lm.unigram(np.array([i for word, i in lm.index.items() if word != "<s>"]))
    (new,) = biased.unigram(np.array([biased.numbers["new"]]))
    assert new == pytest.approx(alone.min() + 4.0)
    assert new < lm.unigram(np.array([lm.index["<unk>"]]))[0] + 4.0


def test_all_ways_through_a_biased_model_are_its_own_contexts() -> None:
    biased = Biased(NGram(language_model()), [("a", "b", "x"), ("b", "c")], 2.0)
    states = np.arange(biased.contexts)
    for number in biased.numbers.values():
        _, after = biased.score(states, np.full(len(states), number))
        assert after.min() >= 0
        assert after.max() < biased.contexts


def test_the_lexicon_that_expects_words_is_the_one_made_with_them() -> None:
    entries, lm = parse(WORDS, TOKENS), NGram(language_model())
    new = [("dbca", [4, 2, 3, 1]), ("abd", [1, 2, 4]), ("abd", [1, 4]), ("aab", [1, 2])]
    lexicon = Lexicon(entries, len(TOKENS), None, lm)
    before = lexicon.children.copy()
    biased = Biased(lm, [("dbca",), ("abd",), ("aab",)], 0.0)
    grown, whole = lexicon.with_words(new, biased), Lexicon([*entries, *new], len(TOKENS), None, lm)
    assert (lexicon.children == before).all()
    assert grown.words == whole.words
    assert (grown.children == whole.children).all()
    assert (grown.leaf == whole.leaf).all()
    assert (grown.parent == whole.parent).all()
    assert (grown.count == whole.count).all()
    for node in range(len(whole.leaf)):
        mine, theirs = (x.ends[x.first[node] : x.first[node] + x.count[node]].tolist() for x in (grown, whole))
        assert mine == theirs
    for word in ("ad", "dbca", "aab", "ab"):
        assert grown.pronunciations(word) == whole.pronunciations(word)
    assert lexicon.pronunciations("dbca") == []
    again = lexicon.with_words(new[:1], Biased(lm, [("dbca",)], 0.0))  # of the same, without the others
    assert again.words == [*lexicon.words, "dbca"]
    assert not again.pronunciations("abd")


def test_look_ahead_is_the_best_word_below() -> None:
    lm = NGram(language_model())
    entries = parse(WORDS, TOKENS)
    lexicon = Lexicon(entries, len(TOKENS), None, lm)
    best: dict[tuple[int, ...], float] = {}
    for word, tokens in entries:
        worth = float(lm.unigram(np.array([lm.index[word]]))[0])
        for n in range(1, len(tokens) + 1):
            best[tuple(tokens[:n])] = max(best.get(tuple(tokens[:n]), -1e9), worth)
    assert len(best) + 1 == len(lexicon.ahead)
    for path, worth in best.items():
        node = 0
        for token in path:
            node = int(lexicon.children[node, token])
        assert lexicon.ahead[node] == worth
    assert lexicon.ahead[0] == 0


HOT: list[dict[str, Any]] = [{}, {"hotwords": ["dbca", "ad c"]}, {"hotwords": ["bd"], "hotword_bonus": 9.0}, {}]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), cuts=st.sets(st.integers(1, 59), max_size=5))
def test_streams_with_and_without_in_one_batch_are_as_alone(seed: int, cuts: set[int]) -> None:
    rng = np.random.default_rng(seed)
    logp = np.stack([peaky(rng, 60, len(TOKENS), 2.0) for _ in HOT])
    alone = [play(WITH, logp[i], wishes) for i, wishes in enumerate(HOT)]
    memories, together = [WITH.open(wishes) for wishes in HOT], [[] for _ in HOT]  # type: ignore[var-annotated]
    assert WITH.hotword_sets == 2
    edges = [0, *sorted(cuts), 60]
    for begin, end in itertools.pairwise(edges):
        for i, events in enumerate(WITH.step(memories, {WITH.output: logp[:, begin:end]}, [end - begin] * len(HOT))):
            together[i] += events
    for i, memory in enumerate(memories):
        together[i] += WITH.finish(memory)
        assert spoken([e.to_dict() for e in together[i]]) == spoken(alone[i])


@pytest.mark.long
@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), cuts=st.sets(st.integers(1, 59), min_size=1, max_size=4))
def test_a_stream_with_hotwords_sleeps_as_if_nothing_were(seed: int, cuts: set[int]) -> None:
    logp = peaky(np.random.default_rng(seed), 60, len(TOKENS), 2.0)
    awake = play(WITH, logp, HOT[1], sorted(cuts))
    asleep = play(task(options()), logp, HOT[1], sorted(cuts), sleep=True)
    assert asleep == awake


def test_sets_go_with_their_streams() -> None:
    mine = task(options())
    memories = [mine.open({"hotwords": ["dbca"]}), mine.open({"hotwords": ["dbca"]}), mine.open({"hotwords": ["cd"]})]
    assert mine.hotword_sets == 2
    del memories[:2]
    assert mine.hotword_sets == 1


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"hotwords": ["c4"]}, "write numbers in words"),
        ({"hotwords": [""]}, "hotwords"),
        ({"hotwords": [" "]}, "1 to 8 words"),
        ({"hotwords": ["a b c d a b c d a"]}, "1 to 8 words"),
        ({"hotwords": ["xyz"]}, "'x' is not a known letter"),
        ({"hotwords": ["a" * 41]}, "can't be pronounced"),
        ({"hotwords": ["ab"] * 2001}, "hotwords"),
        ({"hotwords": ["ab"], "decoder": "greedy"}, "decoder beam"),
        ({"hotwords": ["ab"], "decoder": {"lm_weight": 0.0}}, "lm_weight above 0"),
        ({"hotword_bonus": -1.0}, "hotword_bonus"),
    ],
)
def test_what_can_not_be_expected_is_refused_by_name(wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WITH.open(wishes)


def test_without_rules_the_lexicon_is_all_there_is() -> None:
    plain = task(options(letters=False))
    plain.open({"hotwords": ["ad", "AB da"]})
    with pytest.raises(ValueError, match="'Dbca' is not in the model's lexicon"):
        plain.open({"hotwords": ["Dbca"]})


def test_phrases_are_cut_into_words() -> None:
    assert phrase("New-York  Times") == ("New", "York", "Times")
    assert phrase("Beyoncé") == ("Beyonce",)
    assert phrase("O\N{RIGHT SINGLE QUOTATION MARK}Brien's") == ("O'Brien's",)


def test_short_words_in_capitals_are_spelled_as_well() -> None:
    lexicon = Lexicon(parse(WORDS + "d\tD A\n", TOKENS), len(TOKENS), None, None)
    letters = Letters(train(SPELLING, 3, 0.0, 1))
    phrases, entries = pronounced(["CD", "cdd"], lexicon, letters, TOKENS)
    assert phrases == [("cd",), ("cdd",)]
    assert ("cd", [3, 4]) in entries
    assert ("cd", [3, 4, 1]) in entries
    assert ("cdd", [3, 4, 1, 4, 1]) not in entries
