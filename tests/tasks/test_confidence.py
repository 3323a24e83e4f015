"""Confidences as probabilities, and times of words: fitted options of the file."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.speech.lm import SentenceSource, estimate, to_bytes
from streamer.contract.manifest import Packed
from streamer.tasks import TaskError
from streamer.tasks.transcribe.confidence import FEATURES, features, probabilities
from streamer.tasks.transcribe.ngram import NGram
from tests.tasks.world import finals, peaky, play, rows, task

TOKENS = ["<blank>", "A", "B", "C"]
WORDS = "a\tA\nab\tA B\nba\tB A\nc\tC\ncab\tC A B\n"
TEXT = ["a ab c", "ba c a", "ab ab c", "c ba", "a a c ab", "cab"]
WEIGHTS = {"bias": 0.5, "weights": [1.0, 0.1, 0.2, -0.1, 0.5, 0.1, 0.3, 0.1]}


def model(order: int = 3) -> bytes:
    return to_bytes(*estimate([SentenceSource(TEXT)], ["a", "ab", "ba", "c", "cab"], order=order))


def options(**more: Any) -> dict[str, Any]:
    return {
        "tokens": TOKENS,
        "units": "phones",
        "lexicon": Packed.pack(WORDS.encode()).model_dump(),
        "lm": Packed.pack(model()).model_dump(),
        "decoder": {"kind": "beam"},
        "endpoint": {"silence": 0.9, "trailing": 0.24, "length": 1.2},
        **more,
    }


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_a_sequence_scores_as_its_words_one_by_one(order: int) -> None:
    lm = NGram(model(order))
    rng = np.random.default_rng(order)
    for length in (1, 2, 3, 9):
        words = rng.integers(1, len(lm.words), length)
        state, alone = np.array([lm.begin]), []
        for word in words:
            logp, state = lm.score(state, np.array([word]))
            alone.append(logp[0])
        assert lm.sequence(words) == pytest.approx(alone)


def test_features_are_those_of_the_word_its_neighbours_and_the_utterance() -> None:
    lm = NGram(model())
    table = features(["a", "strange", "c"], [0.5, 0.0, 1.0], lm)
    assert table.shape == (3, len(FEATURES))
    columns = dict(zip(FEATURES, table.T, strict=True))
    own = np.log([0.5, 0.001, 1.0])
    assert columns["own"] == pytest.approx(own)
    assert columns["letters"].tolist() == [1, 7, 1]
    assert columns["near_own"] == pytest.approx([own[:2].mean(), own.mean(), own[1:].mean()])
    assert columns["mean_own"] == pytest.approx([own.mean()] * 3)
    assert columns["unigram"][1] == lm.unigram(np.array([lm.index["<unk>"]]))[0]
    assert columns["near_lm"][0] == pytest.approx(columns["lm"][:2].mean())
    assert not features(["a"], [0.5], None)[0, 2:4].any()
    assert probabilities(np.zeros((2, len(FEATURES))), np.ones(len(FEATURES)), 0.0) == pytest.approx([0.5, 0.5])


def test_a_file_with_weights_tells_probabilities_and_the_same_words() -> None:
    logp = peaky(np.random.default_rng(1), 60, len(TOKENS), 2.0)
    plain, fitted = play(task(options()), logp), play(task(options(confidence=WEIGHTS)), logp)
    lm = NGram(model())
    assert [e["text"] for e in fitted] == [e["text"] for e in plain]
    for before, after in zip(plain, fitted, strict=True):
        if before["words"]:
            table = features([w["word"] for w in before["words"]], [w["confidence"] for w in before["words"]], lm)
            sure = probabilities(table, np.array(WEIGHTS["weights"]), 0.5)
            assert [w["confidence"] for w in after["words"]] == pytest.approx(sure, abs=1e-4)


def test_times_are_moved_by_what_the_file_says() -> None:
    logp = rows([0, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 3, 0, 0], len(TOKENS))
    (plain,), (moved,) = (
        finals(play(task(options(**more)), logp)) for more in ({}, {"times": {"start": -0.06, "end": 0.03}})
    )
    assert [(w["start"], w["end"]) for w in plain["words"]] == [(0.12, 0.21), (0.39, 0.42)]
    assert [(w["start"], w["end"]) for w in moved["words"]] == [(0.06, 0.24), (0.33, 0.45)]
    (early,) = finals(play(task(options(times={"start": -0.9, "end": 0.9})), logp))
    assert [(w["start"], w["end"]) for w in early["words"]] == [(0.0, 1.11), (1.11, 1.32)]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    cuts=st.sets(st.integers(1, 149), max_size=5),
    sleep=st.booleans(),
    start=st.floats(-0.3, 0.3),
    end=st.floats(-0.3, 0.3),
)
def test_no_word_begins_before_the_last_one_ends(
    seed: int, cuts: set[int], sleep: bool, start: float, end: float
) -> None:
    moved = task(options(times={"start": start, "end": end}, confidence=WEIGHTS))
    events = play(moved, peaky(np.random.default_rng(seed), 150, len(TOKENS), 2.0), cuts=sorted(cuts), sleep=sleep)
    words = [word for event in finals(events) for word in event["words"]]
    assert words
    assert all(word["start"] <= word["end"] for word in words)
    assert all(before["end"] <= after["start"] for before, after in itertools.pairwise(words))
    assert all(0 <= word["confidence"] <= 1 for word in words)
    said = 0.0
    for event in events:  # neither does a partial
        assert not event["words"] or event["words"][0]["start"] >= said
        said = event["end"] if event["type"] == "final" and event["words"] else said


@pytest.mark.parametrize("wrong", [{"bias": 0.0, "weights": [1.0]}, {"bias": float("nan"), "weights": [0.0] * 8}])
def test_weights_that_do_not_fit_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TaskError, match="confidence"):
        task(options(confidence=wrong))
