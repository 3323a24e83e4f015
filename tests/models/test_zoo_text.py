"""The reader of texts: a grammar whose words don't tell, a model of bytes, a file that answers while it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.build import build
from models.training import checkpoint
from models.zoo.classify import sentiment
from models.zoo.classify.opinions import BY_HAND, LABELS, Grammar
from models.zoo.classify.text_classifier import KNOWN, TextClassifierConfig, TextClassifierNetwork
from streamer.engine.model import Model
from streamer.streams.classification import TextClassifier as Reader
from tests.models.laws import assert_close, check_company, check_state, settle

pytestmark = pytest.mark.long

SMALL = TextClassifierConfig(len(LABELS), embedding=6, hidden=12)


class Scores(TextClassifierNetwork):
    """The tensor alone, as the laws of layers want it."""

    def forward(self, text, state):  # type: ignore[no-untyped-def]
        output, state = super().forward(text, state)
        return output["scores"], state


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentiment")
    return sentiment.train(folder, steps=4)


def test_the_laws_of_layers() -> None:
    torch.manual_seed(1)
    layer = settle(Scores(SMALL))
    x = torch.randint(256, (2, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    check_state(layer, x)
    check_company(layer, x, lambda row: torch.full_like(row, 255))
    with torch.no_grad():
        whole, _ = layer(x, layer.initial_state(2))
        state, parts = layer.initial_state(2), []
        for piece in x.split([1, 9, 13, 7], 1):
            part, state = layer(piece, state)
            parts.append(part)
    assert_close(torch.cat(parts, 1), whole)


def test_capitals_are_small_letters_and_what_is_unknown_is_one_thing() -> None:
    table = TextClassifierNetwork(SMALL).table
    assert torch.equal(table[torch.tensor(list(b"ABZ"))], table[torch.tensor(list(b"abz"))])
    assert table[torch.tensor(list("é".encode()))].tolist() == [0, 0]
    assert len(set(table[torch.tensor(list(KNOWN))].tolist())) == len(KNOWN)


def test_the_words_of_the_grammar_do_not_tell() -> None:
    """In a contrast of two negations words say nothing of the verdict; in single straight clauses they say all."""
    grammar = Grammar(1)
    for kind, low, high in (("new", 0.3, 0.65), ("straight", 0.95, 1.0)):
        texts, labels = sentiment.drawn(grammar, 3000, "new")
        if kind == "straight":
            texts = [grammar.clause(label - 1, negated=False)[0] for label in labels]
        guess = sentiment.bag(sentiment.LabelledTexts(texts[:2500], labels[:2500]), 1)
        assert low <= np.mean(guess(texts[2500:]) == np.array(labels[2500:])) <= high


def test_both_verdicts_have_the_same_negations() -> None:
    grammar = Grammar(2)
    for verdict in (-1, 1):
        clauses = [grammar.clause(verdict)[1] for _ in range(500)]
        assert 0.35 < np.mean(clauses) < 0.55
    assert sorted(BY_HAND) == sorted(LABELS)
    assert len({len(text.splitlines()) for text in BY_HAND.values()}) == 1


def test_a_batch_is_taught_at_each_text_s_end_and_never_behind_it() -> None:
    rows, labels = sentiment.batch(Grammar(3))
    for row, marks in zip(rows.numpy(), labels.numpy(), strict=True):
        length = len(bytes(row).rstrip(b" "))
        assert marks[length - 1] in (0, 1, 2)
        assert set(marks[length:]) <= {-100}
        assert set(marks) <= {-100, marks[length - 1]}


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_few_batches_leave_a_model_and_its_scores(trained: Path) -> None:
    model, info = checkpoint.load(trained)
    assert isinstance(model, TextClassifierNetwork)
    assert info["options"]["labels"] == LABELS
    assert trained.with_name("scores.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_file_keeps_the_laws_and_answers_while_it_reads(trained: Path, tmp_path: Path) -> None:
    model, info = checkpoint.load(trained)
    path = tmp_path / "small.onnx"
    assert build(model, info, path, max_batch=4, long_chunks=40).ok
    text = "Not bad at all, although the été is dull."
    reader = Reader(Model.load(path))
    events = [event.to_dict() for event in reader.events([text.encode()])]
    again = [event.to_dict() for event in reader.events([text[:3].encode(), text[3:].encode()])]
    assert events == again
    assert [event["type"] for event in events] == ["partial"] * 6 + ["final"]
    assert events[-1]["end"] == len(text.encode())
    assert LABELS.index(events[-1]["label"]) == sentiment.answers(model, [text])[0]
    with torch.no_grad():
        rows, _ = sentiment.pack([text])
        output, _ = model(rows, model.initial_state(1))
    assert np.allclose(list(events[-1]["scores"].values()), output["scores"][0, -1].numpy(), atol=1e-3)
