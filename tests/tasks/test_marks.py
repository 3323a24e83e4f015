"""The task ``rewrite``, word by word: what is written has the letters that were said, whatever a model answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks import TaskError, create
from streamer.tasks.marks import CASES, LETTERS, MARKS, Marks, coded, is_known, is_written, write

OPTIONS = {"letters": "abc'", "marks": list(MARKS), "cases": list(CASES)}
WIDTH, STEPS, AHEAD = 5, 4, 1
PUNCTUATION = ",.?!;:…"


def manifest(options: dict[str, Any], most: int = 5, marks: int = 4) -> Manifest:
    outputs = (
        Output(name="letters", dtype="int32", shape=(STEPS, WIDTH)),
        Output(name="marks", dtype="float32", shape=(STEPS, marks)),
        Output(name="cases", dtype="float32", shape=(STEPS, 3)),
    )
    limits = ((0, most),) * WIDTH
    fields = {
        "name": "small", "version": "1", "task": "rewrite", "licence": "none", "states": (), "latency": AHEAD,
        "flush": AHEAD, "max_batch": 8, "outputs": outputs, "options": options,
        "input": Input(name="words", dtype="int32", chunk_shape=(STEPS, WIDTH), step_seconds=0.0, limits=limits),
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(chunks=(), outputs={"letters": (), "marks": (), "cases": ()}),
    }  # fmt: skip
    return Manifest.model_validate(fields)


def said(words: list[str], marks: list[str], cases: list[str]) -> dict[str, np.ndarray]:
    """Outputs [1, n, ...] of a model that is sure; an empty word is a pause."""
    return {
        "letters": coded(words, "abc'", WIDTH)[None],
        "marks": np.eye(4, dtype=np.float32)[[MARKS.index(mark) for mark in marks]][None],
        "cases": np.eye(3, dtype=np.float32)[[CASES.index(case) for case in cases]][None],
    }


OUTPUTS = said(
    ["", "a", "cab", "", "bb", "a'c", "ca", "b"],
    ["", "", ".", "?", ",", "?", "", "."],
    ["lower", "lower", "lower", "lower", "upper", "lower", "lower", "capital"],
)
TEXTS = ["A", "cab.", "BB,", "a'c?", "Ca", "B."]


def play(cuts: list[int], sleep: bool = False) -> list[dict[str, Any]]:
    task = create(manifest(OPTIONS))
    memory, events = task.open({}), []
    for begin, end in zip([0, *cuts], [*cuts, 8], strict=True):
        part = {name: array[:, begin:end] for name, array in OUTPUTS.items()}
        events += task.step([memory], part, [end - begin])[0]
        if sleep:
            memory = task.load(task.save(memory))
    return [event.to_dict() for event in [*events, *task.finish(memory)]]


def test_words_come_out_when_the_model_has_looked_ahead() -> None:
    found = play([])
    assert [event["text"] for event in found] == TEXTS
    assert [event["step"] for event in found] == [0, 1, 3, 4, 5, 6]  # of the row in which the word was said
    assert all(event["type"] == "rewritten" and event["log_prob"] == 0.0 for event in found)


@pytest.mark.parametrize("cuts", [[1], [2, 3, 6], list(range(1, 8))])
def test_cuts_and_sleep_change_nothing(cuts: list[int]) -> None:
    assert play(cuts) == play(cuts, sleep=True) == play([])


def test_padded_steps_and_other_rows_do_not_count() -> None:
    task = create(manifest(OPTIONS))
    outputs = {name: np.concatenate([array, array[:, ::-1]]) for name, array in OUTPUTS.items()}
    outputs["marks"][1] = np.nan  # a model that breaks
    found = task.step([task.open({}), task.open({})], outputs, [4, 2])
    assert [event.to_dict()["text"] for event in found[0]] == TEXTS[:2]
    assert [event.to_dict()["text"] for event in found[1]] == ["B", "ca"]


def test_weights_move_the_choice() -> None:
    outputs = {"marks": np.array([[0.45, 0.0, 0.4, 0.15]], np.float32), "cases": np.zeros((1, 3), np.float32)}
    assert Marks(manifest(OPTIONS)).choose(outputs)[0].tolist() == [0]
    weighted = Marks(manifest(OPTIONS | {"weights": [1.0, 1.0, 1.5, 1.0]}))
    assert weighted.choose(outputs)[0].tolist() == [2]


def test_what_does_not_fit_is_refused() -> None:
    for options, said in (({"marks": [""]}, "options.letters"), (OPTIONS | {"weights": [1.0]}, "4 weights")):
        with pytest.raises(TaskError, match=said):
            create(manifest(options))
    with pytest.raises(TaskError, match="limits"):
        create(manifest(OPTIONS, most=6))
    with pytest.raises(TaskError, match="outputs"):
        create(manifest(OPTIONS, marks=3))
    task = create(manifest(OPTIONS))
    with pytest.raises(ValueError, match="leave out beam"):
        task.open({"beam": 1})
    for data in (b"", b"[]", b"{}", b'{"step": "x", "begins": true}'):
        with pytest.raises(ValueError, match="not a memory"):
            task.load(data)


def test_codes() -> None:
    rows = coded(["Abc", "", "müsli", "x" * 30], LETTERS, 8)
    assert rows[0].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert not rows[1].any()
    assert rows[2, 1] == len(LETTERS) + 1  # a letter that is none of those
    assert rows[3].tolist() == [24] * 8


@pytest.mark.parametrize(
    ("word", "mark", "case", "begins", "text"),
    [
        ("hello", ",", "lower", True, "Hello,"),
        ("ceo's", ".", "upper", False, "CEO's."),
        ("i'll", "", "lower", False, "I'll"),
        ("'tis", "", "capital", False, "'Tis"),
        ("HELLO", "", "lower", False, "hello"),
        ("JOHN", "?", "capital", False, "John?"),
        ("a.m.", ".", "lower", False, "a.m."),
        ("o'clock", ".", "capital", False, "O'clock."),
        ("straße", "", "upper", False, "straße"),  # its capitals have one letter more
        ("", ".", "upper", True, "."),
        ("23", "", "lower", True, "23"),
    ],
)
def test_one_word(word: str, mark: str, case: str, begins: bool, text: str) -> None:
    assert write(word, mark, case, begins) == text


@given(st.text(max_size=12), st.sampled_from(MARKS), st.sampled_from(CASES), st.booleans())
def test_no_letter_is_ever_changed(word: str, mark: str, case: str, begins: bool) -> None:
    text = write(word, mark, case, begins)
    assert text.lower().rstrip(PUNCTUATION) == word.lower().rstrip(PUNCTUATION)
    assert len(text) <= len(word) + 1


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("hello world", False), ("HELLO WORLD", False), ("I think i'm I'm", False), ("at five a.m. we go", False),
        ("Hello world", True), ("hello, world", True), ("is it?", True), ("", False), ("42", False),
    ],
)  # fmt: skip
def test_who_knew_how_to_write(text: str, written: bool) -> None:
    assert is_written(text) == written


def test_words_of_another_script_are_none_of_ours() -> None:
    assert is_known("hello")
    assert is_known("für alle")
    assert not is_known("привет мир")
    assert not is_known("你好")
    assert not is_known("23")
