"""Prefix beam search: what it adds up is right, and chunks, company, sleep and garbage don't show."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.speech.lm import SentenceSource, estimate, to_bytes
from streamer.contract.manifest import Packed
from streamer.tasks import TaskError
from streamer.tasks.transcribe.beam import Beam
from streamer.tasks.transcribe.lexicon import Lexicon, parse
from streamer.tasks.transcribe.ngram import NGram
from streamer.tasks.transcribe.options import Decoder
from streamer.tasks.transcribe.task import Transcribe, decode_all
from tests.tasks.world import finals, manifest, peaky, play, rows, spoken, task

PHONES = ["<blank>", "|", "A", "B", "C"]
#: Homophones (X, XX), a word inside another (X in Y), two ways to say one (Z), a doubled phone (W).
WORDS = "X\tA\nXX\tA\nY\tA B\nZ\tB\nZ\tC B\nW\tC C\n"
TEXT = ["X Y Z", "Y Y W", "XX Z", "W X", "Z Z Z Y", "XX XX W Z", "Y W"]
EXACT: dict[str, Any] = {
    "kind": "beam",
    "beam": 1024,
    "beam_threshold": 1e6,
    "token_threshold": 0.0,
    "max_tokens": 100,
    "blank_skip": 1.0,
}


def language_model(order: int = 3) -> bytes:
    return to_bytes(*estimate([SentenceSource(TEXT)], ["W", "X", "XX", "Y", "Z"], order=order))


def options(boundary: str | None = "|", lm: bool = True, **decoder: Any) -> dict[str, Any]:
    made = {
        "tokens": PHONES,
        "units": "phones",
        "lexicon": Packed.pack(WORDS.encode()).model_dump(),
        "decoder": {"kind": "beam", "boundary": boundary, **decoder},
        "endpoint": {"silence": 0.9, "trailing": 0.24, "length": 2.1},
    }
    return made | ({"lm": Packed.pack(language_model()).model_dump()} if lm else {})


def brute_force(logp: NDArray[np.float32], boundary: bool) -> dict[tuple[str, ...], float]:
    """p(words) summed over all alignments, all pronunciations and all places of optional boundaries."""
    collapsed: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(logp.shape[1]), repeat=len(logp)):
        p = math.exp(sum(float(logp[t, k]) for t, k in enumerate(path)))
        collapsed[tuple(k for k, _ in itertools.groupby(path) if k)] += p
    entries = parse(WORDS, PHONES)
    result: dict[tuple[str, ...], float] = defaultdict(float)
    for tokens, p in collapsed.items():
        for words in segmentations(tokens, entries, boundary):
            result[words] += p
    return result


def segmentations(tokens: tuple[int, ...], entries: Any, boundary: bool) -> set[tuple[str, ...]]:
    if not tokens:
        return {()}
    found = set()
    if boundary and tokens[0] == 1:
        found |= segmentations(tokens[1:], entries, boundary)
    for word, way in entries:
        if tokens[: len(way)] == tuple(way):
            found |= {(word, *rest) for rest in segmentations(tokens[len(way) :], entries, boundary)}
    return found


class Never:
    """No utterance ends."""

    def __init__(self, due: NDArray[np.int64]) -> None:
        self.due = due

    def ask(self, row: int) -> bool:
        raise AssertionError("nothing is due")


def hypotheses(search: Beam, logp: NDArray[np.float32], lexicon: Lexicon) -> dict[tuple[str, ...], float]:
    """p(words) of every hypothesis that ends with a whole word, as far as the beam's scores go."""
    from streamer.tasks.transcribe.hypotheses import HIST, NODE, PB, PN

    state = search.open()
    zero, end = np.zeros(1, np.int64), np.array([len(logp)], np.int64)
    search.advance([state], logp[None], end, zero, Never(end))
    floats = state.beam.view(np.float64)
    result: dict[tuple[str, ...], float] = defaultdict(float)
    for i in np.flatnonzero(state.beam[NODE] == 0):
        p = math.exp(np.logaddexp(floats[PB, i], floats[PN, i]))
        if p > 0:
            words = state.words.trace(int(state.beam[HIST, i]), lexicon.words)
            result[tuple(unit.text for unit in words)] += p
    return result


@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_an_unbounded_beam_adds_up_all_alignments(seed: int, boundary: bool) -> None:
    logp = peaky(np.random.default_rng(seed), 5, len(PHONES), sharpness=1.0)
    lexicon = Lexicon(parse(WORDS, PHONES), len(PHONES), 1 if boundary else None, None)
    expected = brute_force(logp, boundary)
    found = hypotheses(Beam(Decoder(**EXACT), lexicon, None, 0), logp, lexicon)
    assert set(found) == set(expected)
    for words, p in expected.items():
        assert found[words] == pytest.approx(p, rel=1e-5), words


@pytest.mark.parametrize("seed", range(3))
def test_language_model_and_word_score_come_on_top_at_word_ends(seed: int) -> None:
    logp = peaky(np.random.default_rng(seed), 5, len(PHONES), sharpness=1.0)
    lm = NGram(language_model())
    lexicon = Lexicon(parse(WORDS, PHONES), len(PHONES), None, lm)
    found = hypotheses(Beam(Decoder(**EXACT, lm_weight=0.7, word_score=0.3), lexicon, lm, 0), logp, lexicon)
    for words, p in brute_force(logp, False).items():
        state, total = np.array([lm.begin]), 0.0
        for word in words:
            add, state = lm.score(state, np.array([lm.index[word]]))
            total += 0.7 * float(add[0]) + 0.3
        assert found[words] == pytest.approx(p * math.exp(total), rel=1e-5), words


def test_without_a_lexicon_every_token_is_a_word() -> None:
    letters = ["<blank>", " ", "a", "b"]
    free = task({"tokens": letters, "units": "characters", "decoder": {"kind": "beam", "beam": 8}})
    events = play(free, rows([2, 0, 2, 3, 1, 3, 3, 0, 2], 4))
    assert finals(events)[0]["text"] == "aab ba"


def test_more_alignments_beat_the_best_path() -> None:
    """Two steps, blank 0.6 and A 0.4: the best path is empty, but A has 0.64 over its three alignments."""
    logp = np.log(np.array([[0.6, 1e-9, 0.4, 1e-9, 1e-9]] * 2, np.float32))
    assert finals(play(task(options(lm=False) | {"decoder": {"kind": "greedy"}}), logp)) == []
    assert finals(play(task(options(lm=False)), logp))[0]["text"] == "X"


@pytest.mark.parametrize("merge", ["history", "state"])
@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 150), max_size=12), sleep=st.booleans())
@example(seed=16284, cuts=[28], sleep=False)  # a partial that only the cut shows is taken back
@settings(max_examples=12, deadline=None)
def test_cut_and_sleep_change_no_final(merge: str, seed: int, cuts: list[int], sleep: bool) -> None:
    beam = task(options(beam=6, merge=merge))
    logp = peaky(np.random.default_rng(seed), 150, len(PHONES))
    assert spoken(play(beam, logp, None, cuts, sleep)) == spoken(play(beam, logp))


@given(seed=st.integers(0, 2**32 - 1), company=st.integers(1, 9), place=st.integers(0, 8))
@settings(max_examples=12, deadline=None)
def test_company_does_not_show(seed: int, company: int, place: int) -> None:
    """Bit for bit, beside garbage, NaN, other lengths and other decoders."""
    beam = task(options(beam=6))
    rng = np.random.default_rng(seed)
    logp = peaky(rng, 40, len(PHONES))
    alone, together = beam.open({}), beam.open({})
    others = [beam.open({} if i % 2 else {"decoder": {"beam": 3}}) for i in range(company)]
    at = place % (company + 1)
    for begin in range(0, 40, 8):
        noise = rng.normal(size=(company, 8, len(PHONES))) * 10.0 ** rng.integers(-3, 38, (company, 1, 1))
        noise[rng.random(company) < 0.3] = np.nan
        batch = np.insert(noise, at, logp[begin : begin + 8], axis=0).astype(np.float32)
        memories = [*others[:at], together, *others[at:]]
        steps = [int(s) for s in rng.integers(0, 9, company)]
        events = beam.step(memories, {"logp": batch}, [*steps[:at], 8, *steps[at:]])[at]
        assert events == beam.step([alone], {"logp": logp[None, begin : begin + 8]}, [8])[0]
        assert beam.save(alone) == beam.save(together)


@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_rows_that_are_no_distribution_count_as_blank(kind: str) -> None:
    beam = task(options() | {"decoder": {"kind": kind, "boundary": "|"}})
    good = rows([2, 3, 0, 0, 4, 3], 5)
    bad = np.insert(good, 2, [np.nan] * 5, axis=0)
    bad[3], bad[4] = np.inf, -np.inf
    memory = beam.open({"partials": False})
    events = [*beam.step([memory], {"logp": bad[None]}, [len(bad)])[0], *beam.finish(memory)]
    assert [e.text for e in events] == [e["text"] for e in finals(play(beam, good))]
    assert memory.bad == 3


def test_memory_is_bounded_in_an_endless_stream_without_pauses() -> None:
    beam = task(options(beam=6))
    logp = peaky(np.random.default_rng(1), 500, len(PHONES), sharpness=2.0)
    memory, sizes = beam.open({}), []
    for _ in range(8):
        for begin in range(0, 500, 10):
            beam.step([memory], {"logp": logp[None, begin : begin + 10]}, [10])
            sizes.append(len(memory.state.words))
    assert max(sizes) <= 32 * 6 + 256 + 10 * 6  # the sweep's mark and what one chunk can add
    assert len(beam.save(memory)) < 20_000


@pytest.mark.parametrize("merge", ["history", "state"])
@given(seed=st.integers(0, 2**32 - 1), length=st.sampled_from([0.6, 2.1]))
@example(seed=1602581, length=2.1)
@example(seed=363, length=2.1)
@example(seed=442, length=2.1)  # in a partial only
@settings(max_examples=12, deadline=None)
def test_words_follow_each_other_and_stable_ones_stay(merge: str, seed: int, length: float) -> None:
    made = options(beam=6, merge=merge)
    made["endpoint"]["length"] = length  # short utterances are cut in the middle of words
    events = play(task(made), peaky(np.random.default_rng(seed), 200, len(PHONES)), cuts=list(range(5, 200, 5)))
    told, promised = 0.0, ""  # the end of the last word that is final
    for event in events:
        words = event["text"].split()
        assert " ".join(words).startswith(promised)
        promised = " ".join(words[: event["stable"]]) if event["type"] == "partial" else ""
        time = told
        for word in event["words"]:
            assert time <= word["start"] < word["end"]
            assert 0.0 <= word["confidence"] <= 1.0
            time = word["end"]
        if event["type"] == "final":
            told = time


def test_a_beam_outlives_tokens_that_lead_only_to_words_which_are_ruled_out() -> None:
    """The best hypothesis was on its way to a word that then cost more than the threshold: the others were gone."""
    beam = task(options(lm=False, boundary=None, beam=4, beam_threshold=3.0, word_score=-5.0))
    said = rows([0, 4, 0, 4, 0, 0], 5, peak=0.999)  # C C, which is W and nothing else
    assert finals(play(beam, said))[0]["text"] == "W"


def test_many_recordings_decode_as_each_alone() -> None:
    beam = task(options(beam=6))
    rng = np.random.default_rng(5)
    recordings = [peaky(rng, int(n), len(PHONES)) for n in rng.integers(1, 90, 9)]
    assert decode_all(beam, recordings, batch=4) == [decode_all(beam, [one])[0] for one in recordings]


@pytest.mark.parametrize(
    ("lexicon", "message"),
    [("X A", "line 1: 'X A' is not"), ("X\tA\nY\tQ", "line 2: Y has Q"), ("", "empty"), ("X\t", "line 1")],
)
def test_a_lexicon_that_does_not_fit_is_refused(lexicon: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Transcribe(manifest(options() | {"lexicon": Packed.pack(lexicon.encode()).model_dump()}))


def test_a_language_model_that_is_none_is_refused() -> None:
    with pytest.raises(TaskError, match="n-gram"):
        Transcribe(manifest(options() | {"lm": Packed.pack(b"\\data\\").model_dump()}))


def test_memory_of_another_decoder_is_refused() -> None:
    memory = task(options(beam=6)).open({})
    saved = task(options(beam=6)).save(memory)
    with pytest.raises(ValueError, match="decoder"):
        task({"tokens": ["<blank>", "ONE"], "units": "words"}).load(saved)
