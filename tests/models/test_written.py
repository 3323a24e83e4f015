"""The recipe of punctuation and capitals: labels of texts, disturbed streams, the laws of the network, a whole run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from export.build import build
from models.shipped import written
from models.shipped.captions import Captions, CaptionsConfig
from models.shipped.written_scores import baseline, f1, scored
from models.shipped.written_texts import (
    QUIET,
    UNKNOWN,
    Corpus,
    Line,
    TextNoise,
    Vocabulary,
    labelled,
    part_of,
    rows,
    streamed,
)
from models.training import checkpoint
from streamer.engine.model import Model
from streamer.streams.captions import Captioner, CaptionReading
from streamer.tasks.marks import CASES, MARKS, WIDTH, coded, write

SMALL = CaptionsConfig(words=101, width=8, trigrams=53, letters=4, hidden=12, mixed=16)


def line(text: str) -> Line:
    found = labelled(text, random.Random(1))
    assert found is not None, text
    return found


def shown(found: Line) -> str:
    return " ".join(write(said.word, MARKS[said.mark], CASES[said.case], False) for said in found)


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said", "written"),
    [
        ("Well, it's 5 o'clock. Is John in?", "well it's five o'clock is john in", None),
        ("Our CEO met Mr. Smith!", "our ceo met mister smith", "Our CEO met Mister Smith."),
        ("One thing: we stay; they go.", "one thing we stay they go", "One thing, we stay, they go."),
        ("Please confirm: You leave on March 3rd?", None, "Please confirm. You leave on March third?"),
        ('He said "no" (twice).', "he said no twice", "He said no twice."),
        ("The P/E isn't 7:30 a.m. today.", None, None),
    ],
)
def test_a_text_is_cut_into_what_is_said_and_what_is_written(text: str, said: str | None, written: str | None) -> None:
    for seed in range(8):
        found = labelled(text, random.Random(seed))
        assert found is not None
        words = [one.word for one in found]
        assert all(word == word.lower() and word[-1] not in ",.?!;:" for word in words)
        if said is not None:
            assert " ".join(words).replace("mr ", "mister ").replace("mrs ", "missus ") == said
        if written is not None:
            assert shown(found).replace("Mr ", "Mister ").replace("the third", "third") == written


@pytest.mark.parametrize(
    "text", ["", "no capital.", "No mark", "Ends, with a comma,", "It is. small behind a stop.", "Ünïcödé → arrow."]
)
def test_what_was_written_without_care_is_left_out(text: str) -> None:
    assert labelled(text, random.Random(1)) is None


def test_parts_are_whole_documents() -> None:
    documents = [[f"Sentence {n} of {m}." for n in range(5)] for m in range(600)]
    counts = {part: sum(part_of(document) == part for document in documents) for part in ("train", "dev", "report")}
    assert sum(counts.values()) == 600
    assert 30 < counts["dev"] < 90
    assert 30 < counts["report"] < 90


# -- streams -----------------------------------------------------------------------------------------------------------

LINES = [line(text) for text in ("Hello, John.", "Is it you?", "Yes, it is me. Come in.")]


def test_pauses_stand_behind_sentences() -> None:
    vocabulary = Vocabulary()
    each = [one for one, _ in rows([LINES], vocabulary)]
    found = streamed(each, QUIET, 3, np.random.default_rng(0))
    names = list(vocabulary.places)
    assert [names[i] for i in found.words if i] == [said.word for one in LINES for said in one]
    assert [names[found.words[i]] for i in found.starts] == ["hello", "is", "yes"]
    silent = found.words == 0
    assert (found.marks[silent] == UNKNOWN).all()
    ends = np.flatnonzero(np.diff(silent.astype(int)) == 1)  # the last word before each pause
    assert [names[found.words[i]] for i in ends] == ["john", "you", "me", "in"]
    lengths = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], silent, [0]]))))[::2]
    assert ((lengths >= 3) & (lengths < 7)).all()


def test_errors_keep_the_marks_and_take_the_case() -> None:
    vocabulary = Vocabulary()
    each = [one for one, _ in rows([LINES] * 200, vocabulary)]
    noise = TextNoise(lost=0.1, more=0.1, wrong=0.2)
    found = streamed(each, noise, 3, np.random.default_rng(0))
    said = found.words > 0
    assert 0.8 < said.sum() / sum(map(len, each)) < 1.2
    assert (found.cases[said] == UNKNOWN).sum() > 50
    assert (found.marks[said] >= 0).all()
    again = streamed(each, noise, 3, np.random.default_rng(0))
    assert np.array_equal(found.words, again.words)


def test_scores() -> None:
    assert f1(np.array([True, True, False]), np.array([True, False, False])) == pytest.approx(2 / 3)
    assert f1(np.zeros(3, bool), np.zeros(3, bool)) == 1.0
    found = written.judged(Captions(SMALL).eval(), LINES)
    eye = written.Judged(
        found.words, found.marks, found.cases, found.pauses,
        np.eye(4, dtype=np.float32)[found.marks], np.eye(3, dtype=np.float32)[found.cases],
    )  # fmt: skip
    assert scored(eye) == [1.0, 1.0, 1.0, 1.0]
    comma, period, question, capital = baseline(found)
    assert (comma, question) == (0.0, 0.0)
    assert period == pytest.approx(2 * 3 / (4 + 3))  # four finals, three of which end with one
    assert 0.5 < capital < 1.0  # John is none to it


# -- the network -------------------------------------------------------------------------------------------------------


def some_rows(steps: int, batch: int = 2) -> torch.Tensor:
    words = [said.word for one in LINES for said in one] + ["", "", "zebra"]
    pick = np.random.default_rng(4).integers(0, len(words), batch * steps)
    return torch.from_numpy(coded([words[i] for i in pick])).view(batch, steps, WIDTH)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[1] * 40, [7, 1, 20, 12]])
def test_any_split_says_the_same(lengths: list[int]) -> None:
    model, x = Captions(SMALL).eval(), some_rows(40)
    whole, after = model(x, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for piece in x.split(lengths, 1):
        said, state = model(piece, state)
        parts.append(said)
    for name, want in whole.items():
        assert torch.allclose(torch.cat([p[name] for p in parts], 1).float(), want.float(), atol=1e-5), name
    assert all(torch.allclose(state[name].float(), after[name].float(), atol=1e-5) for name in after)


@torch.no_grad()
def test_it_looks_no_farther_ahead_than_it_says() -> None:
    model, x = Captions(SMALL).eval(), some_rows(20, 1)
    whole, _ = model(x, model.initial_state(1))
    other = x.clone()
    other[:, 11:] = some_rows(9, 1)
    changed, _ = model(other, model.initial_state(1))
    assert torch.equal(whole["letters"][0, 3:], x[0, :-3])  # the word of three rows ago
    assert torch.equal(whole["marks"][:, :11], changed["marks"][:, :11])
    assert not torch.equal(whole["marks"][:, 11], changed["marks"][:, 11])


@torch.no_grad()
def test_packed_tables_say_nearly_the_same() -> None:
    torch.manual_seed(1)
    model, x = Captions(SMALL).eval(), some_rows(30)
    packed = model.pack()
    plain, _ = model(x, model.initial_state(2))
    small, _ = packed(x, packed.initial_state(2))
    assert packed.words.rows.dtype == torch.int8
    assert torch.allclose(plain["marks"], small["marks"], atol=0.02)


# -- end to end --------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_run_from_texts_to_a_file_that_is_judged(tmp_path: Path) -> None:
    """Sentences of one kind, learned in seconds; stopped and resumed; the file says what the checkpoint does."""
    rng = random.Random(2)
    names = ["anna", "bob", "carl", "dora"]

    def talk() -> list[Line]:
        texts = [rng.choice(("Is {0} here?", "Yes, {0} is.", "No.", "Ask {1}, please.")) for _ in range(30)]
        return [line(text.format(*(rng.choice(names).title() for _ in range(2)))) for text in texts]

    corpus = Corpus(
        {part: {"calls": [talk() for _ in range(n)]} for part, n in (("train", 60), ("dev", 3), ("report", 3))}
    )
    folder = tmp_path / "run"
    written.train(folder, steps=40, corpus=corpus, config=SMALL)
    path = written.train(folder, steps=120, corpus=corpus, config=SMALL, resume=True)
    scores = json.loads((folder / "scores.json").read_text())
    for what in ("comma", "period", "question mark", "capital"):
        assert scores[f"F1, {what}"] > 0.8, what
        assert scores[f"F1, {what}"] >= scores[f"F1, {what}, baseline"]
    assert (folder / "report.md").read_text().count("| calls |") == 3
    model, info = checkpoint.load(path)
    target = tmp_path / "written.onnx"
    assert build(model, info, target).ok
    captions, reading = Captioner(Model.load(target)), CaptionReading()
    words = [said.word for said in line("Ask Dora, please.")]
    ((labels,),) = captions.read([[words]], [reading])
    assert captions.task.written(words, labels.marks, labels.cases, True) == ["Ask", "Dora,", "please."]
