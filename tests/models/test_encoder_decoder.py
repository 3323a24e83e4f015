"""The encoder-decoder: bounded memory, teaching equals running, any split, any company, a file that keeps the laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from export.build import RefusedError, build
from models.layers.memory import RingMemory, gru_step
from models.shipped import numbers
from models.shipped.encoder_decoder import END, EncoderDecoder, EncoderDecoderConfig
from models.shipped.phrases import CLASSES, LONGEST, SIGNS, held_out, parsed, phrase
from models.training import checkpoint
from streamer.engine.model import Model
from streamer.streams.numbers import Formatter
from streamer.tasks.spoken import SIGNS as WRITTEN
from streamer.tasks.spoken import WORDS, canonical, says, text

pytestmark = pytest.mark.long

SMALL = EncoderDecoderConfig(words=5, signs=6, hidden=8, embedding=4, slots=4)


def small(config: EncoderDecoderConfig = SMALL) -> EncoderDecoder:
    torch.manual_seed(3)
    model = EncoderDecoder(config).eval()
    with torch.no_grad():  # far from each other, so that something else than one sign is said
        model.head.weight.mul_(20)
        model.head.bias[END] -= 2
    return model


def rows(steps: int, batch: int = 2) -> Tensor:
    """Words, pauses, ends."""
    generator = torch.Generator().manual_seed(5)
    words = torch.randint(0, 6, (batch, steps), generator=generator)
    words *= torch.rand(batch, steps, generator=generator) < 0.3
    end = torch.rand(batch, steps, generator=generator) < 0.3
    return torch.stack([words, end], 2).int()


# -- the layer --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_full_memory_forgets_the_oldest() -> None:
    memory = RingMemory(3, 2)
    state = memory.initial_state(2)
    for n in range(1, 6):
        both = torch.tensor([[True], [n < 3]])
        state = memory.write(torch.full((2, 2), float(n)), both, state)
    assert state["slots"][:, :, 0].tolist() == [[4.0, 5.0, 3.0], [1.0, 2.0, 0.0]]
    assert state["count"].tolist() == [[5], [2]]
    cleared = memory.clear(torch.tensor([[True], [False]]), state)
    assert not cleared["slots"][0].any()
    assert torch.equal(cleared["slots"][1], state["slots"][1])


@torch.no_grad()
def test_attention_is_a_mean_of_what_was_written() -> None:
    memory = RingMemory(4, 3)
    state = memory.initial_state(1)
    query = torch.tensor([[1.0, -2.0, 0.5]])
    context, weights = memory.read(query, state)
    assert not context.any()
    assert not weights.any()
    values = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]])
    for value in values:
        state = memory.write(value[None], torch.tensor([[True]]), state)
    context, weights = memory.read(query, state)
    want = (values @ (memory.query.weight @ query[0]) / 3**0.5).softmax(0)
    assert torch.allclose(weights[0], torch.cat([want, torch.zeros(2)]), atol=1e-6)
    assert torch.allclose(context[0], want @ values, atol=1e-6)


@torch.no_grad()
def test_one_step_of_a_gru_is_pytorchs() -> None:
    torch.manual_seed(0)
    gru = torch.nn.GRU(3, 5, batch_first=True)
    x, h = torch.randn(2, 3), torch.randn(2, 5)
    assert torch.allclose(gru_step(gru, x, h), gru(x[:, None], h[None])[0][:, 0], atol=1e-6)


# -- the architecture -------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[1] * 60, [7, 1, 40, 12], [59, 1]])
def test_any_split_says_the_same(lengths: list[int]) -> None:
    model, x = small(), rows(60)
    whole, after = model(x, model.initial_state(2))
    assert len(set(whole["signs"].flatten().tolist())) > 3
    state, parts = model.initial_state(2), []
    for piece in x.split(lengths, 1):
        out, state = model(piece, state)
        parts.append(out)
    for name, want in whole.items():
        assert torch.allclose(torch.cat([p[name] for p in parts], 1).float(), want.float(), atol=1e-5), name
    assert all(torch.allclose(state[name].float(), after[name].float(), atol=1e-5) for name in after)
    assert not any(value.any() for value in model.initial_state(2).values())


@torch.no_grad()
def test_company_does_not_matter() -> None:
    model, x = small(), rows(40)
    alone, _ = model(x[:1], model.initial_state(1))
    state = {
        name: torch.cat([zero[:1], torch.full_like(zero[1:], float("nan")) if zero.is_floating_point() else zero[1:]])
        for name, zero in model.initial_state(2).items()
    }
    both, _ = model(torch.stack([x[0], torch.full_like(x[1], 2**31 - 1)]), state)
    assert all(torch.allclose(both[name][:1].float(), alone[name].float(), atol=1e-6) for name in alone)


@torch.no_grad()
def test_teaching_gives_what_running_gives() -> None:
    model = small()
    words = torch.tensor([[3, 1, 4, 0], [2, 0, 0, 0]])
    x = torch.zeros(2, 14, 2, dtype=torch.int32)
    x[0, 1:4, 0], x[1, 3, 0], x[:, 3, 1] = words[0, :3].int(), 2, 1
    told, _ = model(x, model.initial_state(2))
    assert not told["signs"][:, :4].any()
    signs = told["signs"][:, 4:]
    ends = [row.index(END) + 1 if END in row else len(row) for row in signs.tolist()]
    logits, attention = model.teach(words, signs)
    for row, end in enumerate(ends):
        assert not signs[row, end:].any()  # nothing more is said to an empty memory
        assert torch.equal(logits[row, :end, 1:].argmax(1) + 1, signs[row, :end])
        want = logits[row, :end].log_softmax(1).gather(1, signs[row, :end, None])[:, 0]
        assert torch.allclose(told["log_prob"][row, 4 : 4 + end], want, atol=1e-5)
        assert torch.allclose(told["attention"][row, 4 : 4 + end], attention[row, :end], atol=1e-5)
        assert torch.allclose(told["attention"][row, 4 : 4 + end].sum(1), torch.ones(end), atol=1e-5)


@torch.no_grad()
def test_a_phrase_does_not_know_the_one_before() -> None:
    """Neither one that was said to its end, nor one that a word broke off."""
    model = small()
    later = torch.tensor([[[3, 0], [1, 1], *[[0, 0]] * 10]], dtype=torch.int32)
    alone, _ = model(later, model.initial_state(1))
    before, state = model(torch.tensor([[[2, 0], [5, 1], [0, 0]]], dtype=torch.int32), model.initial_state(1))
    assert before["signs"][0, 2] > END  # in the middle of a phrase
    broken, _ = model(later, state)
    assert all(torch.allclose(broken[name].float(), alone[name].float(), atol=1e-6) for name in alone)
    model.head.bias[END] = 1e4
    _, ended = model(later, model.initial_state(1))
    assert not any(value.any() for value in ended.values())


# -- phrases ----------------------------------------------------------------------------------------------------------


def test_phrases_are_readings_of_what_they_are_written_as() -> None:
    rng, seen = np.random.default_rng(0), {}
    for kind in CLASSES:
        for held in (False, True):
            for _ in range(150):
                words, written = phrase(rng, kind, held)
                assert says(words, written)
                assert held_out(written) == held
                assert len(words) <= LONGEST
                assert len(numbers.spelled(written)) < SIGNS
                assert text(numbers.spelled(written)) == written
                assert seen.setdefault(canonical(words), written) == written


def test_the_parser_by_rule() -> None:
    rng = np.random.default_rng(1)
    for kind in ("cardinal", "ordinal", "decimal", "negative", "percent"):
        assert all(parsed(words) == written for words, written in (phrase(rng, kind) for _ in range(300)))
    assert parsed("half past six".split()) == ""


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_recipe_and_its_file(tmp_path: Path) -> None:
    """A few batches: what it leaves is judged, and runs. It has not learnt to write, so every word stays."""
    best = numbers.train(tmp_path, steps=3, tested=5)
    model, info = checkpoint.load(best)
    assert isinstance(model, EncoderDecoder)
    file = tmp_path / "numbers.onnx"
    assert build(model, info, file, max_batch=8, long_chunks=100).ok
    loaded = Model.load(file)
    phrases = [["twenty", "three"], ["five", "hundred"]]
    formatter = Formatter(loaded)
    assert [a[:4] for a in formatter.rewrite(phrases)] in (
        [a[:4] for a in numbers.written(model, phrases)], ["", ""],
    )  # fmt: skip
    spoken = "we saw twenty three birds and five hundred trees".split()
    (pieces,) = formatter.write([spoken])
    assert [piece for _, _, piece in pieces] == spoken
    assert info["options"] == {"words": list(WORDS), "signs": list(WRITTEN)}


def test_a_file_for_another_task_is_refused(tmp_path: Path) -> None:
    info = numbers.INFO | {
        "input": {
            "name": "phrase", "dtype": "int32", "chunk_shape": [2, 2], "step_seconds": 0.0, "limits": [[0, 5], [0, 1]],
        },
        "options": {"words": list("abcde"), "signs": list("wxyz")},
    }  # fmt: skip
    file = tmp_path / "small.onnx"
    assert build(small(), info, file, max_batch=8, long_chunks=300).ok
    Formatter(Model.load(file))
    few = info | {"options": {"words": ["a"], "signs": ["x"]}}
    with pytest.raises(RefusedError, match="limits"):
        build(small(), few, file, max_batch=2, long_chunks=9)
