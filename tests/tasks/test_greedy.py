"""Greedy decoding: collapse, words, times, and that the cut into chunks is not seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.contract.manifest import Output
from streamer.tasks import TaskError, create
from streamer.tasks.transcribe.task import Transcribe, decode_all
from tests.tasks.world import STEP_SECONDS, finals, manifest, peaky, play, rows, task, texts

DIGITS = ["<blank>", "ZERO", "ONE", "TWO"]
LETTERS = ["<blank>", " ", "a", "b", "c"]


def test_repeats_collapse_and_blanks_separate() -> None:
    words = task({"tokens": DIGITS, "units": "words"})
    assert texts(play(words, rows([0, 1, 1, 0, 1, 2, 2, 0, 3], 4))) == ["ZERO ZERO ONE TWO"]


def test_characters_join_between_boundaries() -> None:
    letters = task({"tokens": LETTERS, "units": "characters"})
    events = play(letters, rows([2, 0, 3, 1, 1, 4, 0, 4, 1], 5), cuts=[3, 7])
    assert texts(events) == ["ab cc"]
    assert [e["text"] for e in events] == ["ab", "ab c", "ab cc", "ab cc"]
    assert [e.get("stable") for e in events] == [0, 1, 2, None]


def test_times_are_those_of_the_sound_and_confidence_is_the_posterior() -> None:
    words = task({"tokens": DIGITS, "units": "words", "delay_steps": 2})
    (final,) = finals(play(words, rows([0, 0, 0, 0, 1, 1, 0, 0, 3], 4, peak=0.75)))
    assert final["words"] == [
        {"word": "ZERO", "start": 0.06, "end": 0.12, "confidence": 0.75},
        {"word": "TWO", "start": 0.18, "end": 0.21, "confidence": 0.75},
    ]
    assert (final["start"], final["end"]) == (0.06, 0.21)


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 120), max_size=12), sleep=st.booleans())
@settings(max_examples=40, deadline=None)
def test_cut_and_sleep_change_no_final(seed: int, cuts: list[int], sleep: bool) -> None:
    letters = task({"tokens": LETTERS, "units": "characters"})
    logp = peaky(np.random.default_rng(seed), 120, 5)
    short = {"endpoint": {"silence": 0.5, "trailing": 0.12, "length": 1.5}}
    assert finals(play(letters, logp, short, cuts, sleep)) == finals(play(letters, logp, short))


def test_a_penalty_on_the_blank_brings_out_what_it_covered() -> None:
    logp = np.log(np.array([[0.6, 0.3, 0.05, 0.05], [0.9, 0.05, 0.03, 0.02], [0.05, 0.05, 0.85, 0.05]], np.float32))
    words = task({"tokens": DIGITS, "units": "words"})
    assert texts(play(words, logp)) == ["ONE"]
    assert texts(play(words, logp, {"decoder": {"blank_penalty": 1.0}})) == ["ZERO ONE"]
    # silence is what the decoder takes for it: the first step is none, and the utterance ends two steps behind it
    late = np.concatenate([logp[:1], np.log(np.full((2, 4), [0.97, 0.01, 0.01, 0.01], np.float32)), logp[2:]])
    short = {"decoder": {"blank_penalty": 1.0}, "endpoint": {"trailing": 2 * STEP_SECONDS}}
    assert texts(play(words, late, short)) == ["ZERO", "ONE"]


def test_options_of_a_manifest_are_refused_by_name() -> None:
    with pytest.raises(TaskError, match=r"options\.tokenz"):
        create(manifest({"tokens": DIGITS, "tokenz": 1, "units": "words"}))
    with pytest.raises(TaskError, match="blank is 9"):
        create(manifest({"tokens": DIGITS, "units": "words", "blank": 9}))
    with pytest.raises(TaskError, match="named twice: ONE"):
        create(manifest({"tokens": ["-", "ONE", "ONE"], "units": "words"}))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"decoder": "best"}, "decoder.kind"),
        ({"decoder": {"beam": 0}}, "decoder.beam"),
        ({"decoder": {"boundary": "ONE"}}, "belongs to the model"),
        ({"endpoint": {"length": 1e9}}, "endpoint.length"),
        ({"endpoint": {"length": None}}, "endpoint.length"),
        ({"partials": "yes"}, "partials"),
        ({"colour": 1}, "colour"),
        ({"decoder": [1]}, "decoder"),
    ],
)
def test_wishes_of_a_stream_are_refused_by_name(wish: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task({"tokens": DIGITS, "units": "words"}).open(wish)


def test_a_stream_may_leave_out_partials_and_words() -> None:
    words = task({"tokens": DIGITS, "units": "words"})
    events = play(words, rows([0, 1, 0, 2], 4), {"partials": False, "words": False}, cuts=[2])
    assert [(e["type"], e["text"], e["words"]) for e in events] == [("final", "ZERO ONE", [])]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"STM1\xff\xff\xff\xff", b"STM1\x02\0\0\0{}"])
def test_foreign_bytes_are_no_memory(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a saved task memory"):
        task({"tokens": DIGITS, "units": "words"}).load(data)


def test_bytes_cut_short_or_grown_are_no_memory() -> None:
    words = task({"tokens": DIGITS, "units": "words"})
    memory = words.open({})
    words.step([memory], {words.output: rows([1, 0, 2], 4)[None]}, [3])
    saved = words.save(memory)
    for damaged in (saved[:-1], saved + b"\0", saved[:40]):
        with pytest.raises(ValueError, match="not a saved task memory"):
            words.load(damaged)


# -- transducers ------------------------------------------------------------------------------------------------------


def aligned(symbols: int = 2) -> Transcribe:
    """The task over a transducer of 60 ms steps: its output is [10, 2, V]."""
    plain = manifest({"tokens": DIGITS, "units": "words"}, steps=10)
    shape = (10 // symbols, symbols, len(DIGITS))
    return Transcribe(plain.model_copy(update={"outputs": (Output(name="logp", dtype="float32", shape=shape),)}))


def test_what_a_transducer_says_twice_is_two() -> None:
    path = [0, 0, 1, 1, 1, 0, 2, 3, 0, 0]
    steps = rows(path, 4, peak=0.75).reshape(5, 2, 4)
    (final,) = finals(play(aligned(), steps))
    assert final["text"] == "ZERO ZERO ZERO ONE TWO"
    assert [word["start"] for word in final["words"]] == [0.06, 0.09, 0.12, 0.18, 0.21]
    assert finals(play(aligned(), steps, cuts=[1, 2, 3], sleep=True)) == [final]
    assert decode_all(aligned(), [steps, steps[:2]]) == [final["text"], "ZERO ZERO"]


def test_silence_of_a_transducer_is_counted_in_time() -> None:
    path = [1, 0, *[0] * 10, 2, 0]
    short = {"endpoint": {"trailing": 10 * STEP_SECONDS}}
    assert texts(play(aligned(), rows(path, 4).reshape(7, 2, 4), short)) == ["ZERO", "ONE"]


@pytest.mark.parametrize("wish", [{"decoder": "beam"}, {"decoder": {"blank_penalty": 1.0}}])
def test_a_transducer_has_searched_already(wish: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="searches in its own graph"):
        aligned().open(wish)


def test_a_shape_that_is_neither_is_refused() -> None:
    for shape in ((10, 5), (5, 2, 5), (10,), (5, 1, 2, 4)):
        plain = manifest({"tokens": DIGITS, "units": "words"}, steps=shape[0])
        with pytest.raises(TaskError, match="4 tokens"):
            create(plain.model_copy(update={"outputs": (Output(name="logp", dtype="float32", shape=shape),)}))
